// cuda/emulated/block.h - one thread block: its threads as fibers of one OS thread, its shared memory, its barriers and
// the meetings of its warps.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulated/fiber.h"
#include "cuda/emulated/words.h"

namespace eg::emulated {

struct Schedule {
  bool random = false;     // else round-robin
  std::uint64_t seed = 0;  // of the random order
};

struct LaunchPlan {
  const char* name = "";
  void (*kernel)() = nullptr;
  void (*call)(void (*)(), const void*) = nullptr;
  const void* parameters = nullptr;
  std::size_t parameter_bytes = 0, shared_bytes = 0;
  dim3 grid, block;
  Schedule schedule;
};

/// What a lane brings to a meeting of its warp.
struct Deposit {
  const char* what = nullptr;  // "__shfl_xor_sync", ...
  const char* file = nullptr;
  int line = 0, argument = 0, width = 0;
  unsigned mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
};
/// Computes the results of all lanes of `mask`; lanes[i] is lane i's deposit.
using Meeting = void (*)(Deposit* lanes, unsigned mask);

struct Copy {
  void* to;
  const void* from;  // null: zeros
  int group;
};

enum class State : std::uint8_t { unstarted, ready, at_barrier, in_meeting, done };

struct Fiber {
  Context context;
  State state = State::unstarted;
  const char* file = nullptr;  // where it waits
  int line = 0;
  Deposit deposit;
  std::vector<Copy> copies;
  int groups = 0;
};

/// Everything that one OS thread needs to run blocks, one after another.
class Block {
 public:
  Block();
  ~Block();
  /// Runs block number `index` of the launch. Throws Error{internal} with kernel, block, thread and place of a fault;
  /// the next block can then run as if nothing had happened.
  void run(const LaunchPlan& plan, std::int64_t index);

  // ---- called by the words, on a fiber
  void barrier(const char* file, int line);
  void meet(const char* what, unsigned mask, const Deposit& deposit, Meeting compute);
  void yield();
  void* dynamic_shared(std::size_t bytes, std::size_t alignment);
  void* static_shared(const void* key, std::size_t bytes, std::size_t alignment);
  void copy_async(void* to, const void* from, bool valid);
  void commit();
  void wait(int still_in_flight);
  bool in_shared(const void* p, std::size_t bytes) const;
  bool on_stack(const void* p) const { return stacks_[std::size_t(current_)]->holds(p); }
  int current() const { return current_; }
  const LaunchPlan& plan() const { return *plan_; }
  /// Ends the block: leaves the fiber for good. `text` says what is wrong and what to do.
  [[noreturn]] void fault(const std::string& text, const char* file, int line);

 private:
  static void entry();
  void start_thread(int thread);
  void set_indices(int thread);
  int next_runnable();
  void suspend(State state, const char* file, int line);
  [[noreturn]] void leave(int to);
  void finish_thread();
  void release_barrier();
  void fill_shared(std::size_t dynamic_bytes);
  void poison_shared(bool poison);
  std::string where(int thread, const char* file, int line) const;
  std::string census() const;
  [[noreturn]] void abandon();

  const LaunchPlan* plan_ = nullptr;
  uint3 index_{};
  int threads_ = 0, current_ = 0, done_ = 0, waiting_ = 0;
  std::uint64_t random_ = 0;
  std::vector<std::unique_ptr<Stack>> stacks_;
  std::vector<Fiber> fibers_;
  std::vector<std::uint64_t> runnable_;   // one bit per thread
  std::vector<unsigned> arrived_, gone_;  // one word per warp
  Context main_;
  std::string fault_;
  // Shared memory: redzone, dynamic, redzone, static pieces each with a redzone behind it.
  char* shared_ = nullptr;
  std::size_t dynamic_bytes_ = 0, used_ = 0;
  struct Piece {
    const void* key;
    std::size_t offset, bytes;
  };
  std::vector<Piece> pieces_;
};

/// The block that runs on this OS thread, or null between launches.
Block* running_block();

}  // namespace eg::emulated
