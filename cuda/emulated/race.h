// cuda/emulated/race.h - the race detector of the emulated device, in two halves: shared memory (threads of one block)
// and device memory (threads, blocks, and the work of different streams).
//
// With -fsanitize=thread the compiler puts a call before every memory access of a kernel file (__tsan_read4(address),
// ...). libtsan is not linked; race.cpp defines the calls, and they come here. All kernels run on one OS thread in this
// build, so that runs repeat and nothing here needs a lock.
//
// Time is counted in epochs, and no epoch number is ever used twice: a block begins a new one, and so does every
// __syncthreads(). __syncwarp() begins a new warp epoch of the lanes in its mask. Two accesses of one block are ordered
// when their epochs differ, when the thread is the same, or when the warp is the same and the warp epochs differ.
// Shuffles, votes and tensor-core words order nothing, as CUDA says. Launches, copies and fills are ordered by their streams,
// by events, and by waits of the host (order.h): where nothing orders two of them that touch one place, that is a race too.
//
// What it does not see: host functions on streams (call_host), which may be anything; values that the compiler keeps in
// registers; of three unordered readers of one place one, when a write waits for the other two.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/emulated/order.h"

namespace eg::emulated::race {

/// One access: who, when, and from where in the program (see place.h).
struct Now {
  int thread;
  std::uint32_t epoch, warp_epoch, code;
};
/// The threads of the running block and their clocks.
struct Clock {
  std::uint32_t epoch = 1;
  std::uint32_t block = 0;  // number of the running block in its launch
  std::vector<std::uint32_t> warp_epoch;
  Now now(int thread, std::uint32_t code) const { return {thread, epoch, warp_epoch[std::size_t(thread)], code}; }
  bool ordered(int thread, std::uint32_t at, std::uint32_t warp, const Now& n) const {
    return at != n.epoch || thread == n.thread || (thread / 32 == n.thread / 32 && warp != n.warp_epoch);
  }
};

/// What must be known of a race to tell it: the text, and where in the program the earlier access stands (0: unknown).
struct Finding {
  const char* what = nullptr;  // null: all is well
  int thread = -1;             // of the earlier access
  std::int64_t block = -1;     // of the earlier access, when it is another one
  std::uint32_t code = 0;
  std::int64_t byte = 0;        // of the access that was found
  const char* other = nullptr;  // the earlier kernel or operation, when it is another one
};

/// The last writer and two readers of every two bytes of shared memory.
class SharedShadow {
 public:
  explicit SharedShadow(const Clock& clock) : clock_(clock) {}
  void begin_block() { first_epoch_ = clock_.epoch; }
  Finding access(const Now& now, std::int64_t offset, std::size_t bytes, bool is_write);

 private:
  struct Access {
    std::uint32_t epoch = 0, warp_epoch = 0, code = 0;
    std::uint16_t thread = 0;
    std::uint8_t bytes = 0;  // which of the cell's two bytes
  };
  struct Cell {
    Access writer, reader[2];
    std::uint32_t written_since = 0;  // the block (its first epoch) in which `written` holds
    std::uint8_t written = 0;         // which bytes that block has written
  };
  bool clash(const Access& a, unsigned bytes, const Now& now) const {
    return (a.bytes & bytes) && !clock_.ordered(a.thread, a.epoch, a.warp_epoch, now);
  }
  static void keep_reader(Cell& cell, const Access& reader);
  const Clock& clock_;
  std::uint32_t first_epoch_ = 0;
  std::vector<Cell> cells_;
};

/// The last writer and two readers of every two bytes of device memory.
///
/// Blocks of one launch are ordered only by a hand-over: the writer's block has a __threadfence() after the write (by
/// the same thread, or by any thread after a barrier), then an atomic; the reader's block has a __threadfence() after
/// an atomic of its own (again by the same thread, or before a barrier).
class GlobalShadow {
 public:
  explicit GlobalShadow(const Clock& clock) : clock_(clock) {}
  /// Shadows the range of the device heap. Address space only: pages appear as kernels touch them.
  void reserve(const char* begin, std::size_t bytes);
  void begin_launch(const Moment& moment, const char* name);
  /// All that the running launch has done so far lies before what it does from now on.
  void grid_barrier() { begin_launch(moment_, launches_.back().name.c_str()); }
  void begin_block(int threads);
  /// All launches so far lie before all later ones.
  void settled();
  void barrier();
  void fence(int thread);
  void atomic(int thread);
  Finding access(const Now& now, const void* p, std::size_t bytes, bool is_write);

 private:
  /// One thread between two barriers or fences; cells name it by number.
  struct Who {
    std::uint32_t block, epoch, warp_epoch, fences;
    int thread;
  };
  struct Cell {
    std::uint32_t writer = 0, writer_code = 0, reader = 0, reader_code = 0;  // number << 2 | which of the two bytes
    std::uint32_t other_reader = 0, other_code = 0;  // of a launch that nothing orders with the reader's
  };
  /// A launch, or part of one up to a grid_barrier(), that later ones need not lie behind.
  struct Launch {
    std::uint32_t first_number;
    int chain;
    std::uint64_t number;
    std::string name;
  };
  struct Fences {
    std::uint32_t count = 0, last_epoch = 0;
    std::unordered_map<int, std::uint32_t> by_thread;  // thread -> number of its last fence
  };
  std::uint32_t number_of(const Now& now);
  const char* clash(std::uint32_t stored, unsigned bytes, const Now& now, bool stored_is_write, bool is_write,
                    Finding* out) const;
  bool handed_over(const Who& from, const Now& to) const;
  /// The launch of a number from before the running one; null when it is over before this one begins.
  const Launch* unordered_launch(std::uint32_t number) const;
  void keep_reader(Cell& cell, std::uint32_t number, unsigned touched, std::uint32_t code);

  const Clock& clock_;
  const char* begin_ = nullptr;
  Cell* cells_ = nullptr;
  std::size_t cell_count_ = 0;
  std::uint32_t first_number_ = 1, settled_ = 0;  // numbers below settled_ lie before everything
  Moment moment_;
  std::vector<Launch> launches_;                             // the running one is the last
  mutable std::uint32_t ordered_from_ = 0, ordered_to_ = 0;  // numbers that were asked for last, and are ordered
  std::vector<Who> who_;                                     // of this launch; number = first_number_ + index
  std::vector<std::uint32_t> numbers_;                       // of the running block's threads; 0: none yet
  std::unordered_map<std::uint32_t, Fences> fences_;
  Fences* mine_ = nullptr;
  // Which threads of the running block have seen what other blocks handed over.
  std::vector<std::int64_t> atomic_epoch_;
  std::vector<bool> acquired_;
  std::int64_t first_atomic_ = -1, first_acquire_ = -1;  // epochs
};

}  // namespace eg::emulated::race
