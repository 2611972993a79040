// cuda/emulated/heap.cpp - see heap.h.
#include "cuda/emulated/heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cuda/emulated/poison.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {
constexpr unsigned char kFence = 0xFB;
}

Heap& Heap::instance() {
  static Heap* const heap = new Heap;  // never destroyed: tensors of other statics may be released after us
  return *heap;
}

Heap::Heap() {
  void* const p =
      ::mmap(nullptr, kReserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(p != MAP_FAILED, Kind::memory,
        [] { return std::string("the emulated device cannot reserve 64 GiB of address space"); });
  base_ = static_cast<char*>(p);
}

void* Heap::allocate(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  const std::size_t room = (bytes + 255) / 256 * 256 + 2 * kRedzone;
  char* start = nullptr;
  // A freed piece serves again when at most a quarter of it is left over.
  const auto fit = free_.lower_bound(room);
  std::size_t taken = room;
  if (fit != free_.end() && fit->first <= room + room / 4) {
    start = fit->second, taken = fit->first;
    free_.erase(fit);
  } else {
    check(fresh_ + room <= kReserved, Kind::memory,
          [&] { return cat("the emulated device has no room for ", bytes, " bytes: ", live_, " bytes are in use"); });
    start = base_ + fresh_;
    fresh_ += room;
  }
  char* const block = start + kRedzone;
  unpoison(start, taken);
  std::memset(start, kFence, kRedzone);
  std::memset(block, 0xFF, bytes);
  std::memset(block + bytes, kFence, taken - kRedzone - bytes);
  poison(start, kRedzone);
  poison(block + bytes, taken - kRedzone - bytes);
  blocks_[block] = {bytes, taken};
  live_ += bytes;
  changes_.fetch_add(1, std::memory_order_release);
  return block;
}

void Heap::inspect(char* block, const Piece& piece) {
  char* const start = block - kRedzone;
  unpoison(start, piece.room);
  const auto check_range = [&](const char* from, std::size_t bytes, const char* side, bool before) {
    for (std::size_t i = 0; i < bytes; ++i) {
      if (static_cast<unsigned char>(from[i]) == kFence) continue;
      const std::size_t distance = before ? bytes - i : i;
      if (damage_.empty())
        damage_ = cat("a kernel wrote ", distance, " bytes ", side, " a device block of ", piece.bytes,
                      " bytes; check the guards at the tail of the kernels that got it");
      return;
    }
  };
  check_range(start, kRedzone, "before", true);
  check_range(block + piece.bytes, piece.room - kRedzone - piece.bytes, "behind the end of", false);
  std::memset(start, kFence, kRedzone);
  std::memset(block + piece.bytes, kFence, piece.room - kRedzone - piece.bytes);
  poison(start, kRedzone);
  poison(block + piece.bytes, piece.room - kRedzone - piece.bytes);
}

void Heap::release(void* p) noexcept {
  if (!p) return;
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(static_cast<char*>(p));
  if (found == blocks_.end()) {
    damage_ = "a pointer was released that is no device block (released twice?)";
    return;
  }
  const Piece piece = found->second;
  inspect(found->first, piece);
  unpoison(found->first, piece.bytes);
  std::memset(found->first, 0xFF, piece.bytes);
  poison(found->first - kRedzone, piece.room);
  free_.emplace(piece.room, found->first - kRedzone);
  live_ -= piece.bytes;
  blocks_.erase(found);
  changes_.fetch_add(1, std::memory_order_release);
}

// Kernels ask this for every asynchronous copy, and in the race build for every access; nearly always about a block
// that they asked about before.
bool Heap::holds(const void* p, std::size_t bytes) const {
  struct Known {
    std::uint64_t changes = ~std::uint64_t(0);
    const char *begin = nullptr, *end = nullptr;
  };
  constexpr std::size_t kKnown = 8;
  static thread_local Known known[kKnown];
  static thread_local std::size_t latest = 0;
  const char* const first = static_cast<const char*>(p);
  const std::uint64_t changes = changes_.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < kKnown; ++i) {
    const Known& k = known[(latest + i) % kKnown];
    if (k.changes != changes || first < k.begin || first + bytes > k.end) continue;
    latest = (latest + i) % kKnown;
    return true;
  }
  if (!in_range(p)) return false;
  const std::lock_guard lock(mutex_);
  auto next = blocks_.upper_bound(const_cast<char*>(first));
  if (next == blocks_.begin()) return false;
  const auto& [start, piece] = *--next;
  if (first + bytes > start + piece.bytes) return false;
  latest = (latest + kKnown - 1) % kKnown;
  known[latest] = {changes, start, start + piece.bytes};
  return true;
}

std::string Heap::describe(const void* p) const {
  if (!in_range(p)) return "outside device memory: a host pointer?";
  const std::lock_guard lock(mutex_);
  auto next = blocks_.upper_bound(static_cast<char*>(const_cast<void*>(p)));
  if (next == blocks_.begin()) return "in device memory before the first block";
  const auto& [start, piece] = *--next;
  return cat("at byte ", static_cast<const char*>(p) - start, " of a device block of ", piece.bytes, " bytes");
}

std::optional<std::string> Heap::take_damage() {
  const std::lock_guard lock(mutex_);
  if (damage_.empty()) return std::nullopt;
  return std::exchange(damage_, {});
}

}  // namespace eg::emulated
