// cuda/emulated/heap.h - the memory of the emulated device: one reserved range, a redzone on both sides of every block.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace eg::emulated {

class Heap {
 public:
  static Heap& instance();
  /// 256-byte aligned, filled with 0xFF (NaN). Throws Error{memory}.
  void* allocate(std::size_t bytes);
  /// Fills the block with 0xFF and looks at its redzones; what was written there is kept for take_damage().
  void release(void* block) noexcept;
  /// True when [p, p + bytes) lies in one live block.
  bool holds(const void* p, std::size_t bytes) const;
  bool in_range(const void* p) const { return p >= base_ && p < base_ + kReserved; }
  const char* begin() const { return base_; }
  static constexpr std::size_t reserved() { return kReserved; }
  /// "outside device memory", or where p lies relative to the nearest block.
  std::string describe(const void* p) const;
  /// What release() found in redzones since the last call, or nothing.
  std::optional<std::string> take_damage();
  std::size_t bytes_live() const { return live_; }

 private:
  static constexpr std::size_t kReserved = std::size_t(64) << 30, kRedzone = 256;
  Heap();
  struct Piece {
    std::size_t bytes;  // asked for
    std::size_t room;   // with both redzones
  };
  void inspect(char* block, const Piece& piece);

  char* base_ = nullptr;
  std::size_t fresh_ = 0, live_ = 0;
  std::map<char*, Piece> blocks_;           // by the address handed out
  std::multimap<std::size_t, char*> free_;  // by room: the start of the redzone
  std::atomic<std::uint64_t> changes_{0};   // grows with every block that comes or goes
  mutable std::mutex mutex_;
  std::string damage_;
};

}  // namespace eg::emulated
