// cuda/emulated/block.h - one thread block: its threads as fibers of one OS thread, its shared memory, its barriers and
// the meetings of its warps.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
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
  bool cooperative = false;  // all blocks are there at once and may meet in grid_barrier()
};

/// Who watches the memory of running kernels: the race detector (race.cpp), in the build that has one.
struct Watcher {
  void (*begin_launch)(const LaunchPlan& plan);
  /// `resumed`: it goes on behind a grid_barrier().
  void (*begin_block)(std::int64_t block, int threads, bool resumed);
  void (*barrier)();
  /// All blocks of a cooperative launch have met; they go on one after another.
  void (*grid_barrier)();
  void (*sync_warp)(int first_thread, unsigned mask);
  void (*fence)(int thread);
  void (*atomic)(int thread);
  /// `code` is the place in the program (place.h).
  void (*access)(int thread, const void* address, std::size_t bytes, bool is_write, std::uint32_t code);
  /// An operation of the running stream that is no kernel reads or writes device memory. Throws Error{internal}.
  void (*operation)(const char* name, const void* address, std::size_t bytes, bool is_write);
  /// Everything enqueued so far is over, and the host has waited for it.
  void (*settled)();
};
extern const Watcher* watcher;

/// What a lane brings to a meeting of its warp.
struct Deposit {
  const char* what = nullptr;  // "__shfl_xor_sync", ...
  const char* file = nullptr;
  int line = 0, argument = 0, width = 0;
  unsigned mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
  std::uint32_t code = 0;  // place in the program, for the race detector
};
/// Computes the results of all lanes of `mask`; lanes[i] is lane i's deposit.
using Meeting = void (*)(Deposit* lanes, unsigned mask);

struct Copy {
  void* to;
  const void* from;  // null: zeros
  int group;
  std::uint32_t code;
};

/// Sums of a thread that warpgroup products in flight will change (warpgroup.cpp).
struct Sums {
  float* to;
  std::vector<float> values;
  int group;  // the last one that changes them
};
/// Operands of a product in flight, seen by one warp; kept with its first lane.
struct Operands {
  std::uint64_t a, b;  // descriptors
  bool a_transposed, b_transposed;
  int cols, group;
  std::uint64_t hash;  // of their bytes
  const char* file;
  int line;
  std::uint32_t code;
};
struct Products {
  std::vector<Sums> sums;
  std::vector<Operands> operands;
  int groups = 0, begun = 0;
  std::uint64_t arguments = 0;  // a hash of all products' so far
  bool fenced = false;
};

enum class State : std::uint8_t { unstarted, ready, at_barrier, at_grid_barrier, in_meeting, done };

struct Fiber {
  Context context;
  State state = State::unstarted;
  const char* file = nullptr;  // where it waits
  int line = 0;
  Deposit deposit;
  std::vector<Copy> copies;
  int groups = 0;
  Products products;
  std::uint32_t product_fences = 0;
};

/// Everything that one OS thread needs to run blocks, one after another.
class Block {
 public:
  Block();
  ~Block();
  /// Runs block number `index` of the launch. Throws Error{internal} with kernel, block, thread and place of a fault;
  /// the next block can then run as if nothing had happened.
  void run(const LaunchPlan& plan, std::int64_t index) {
    begin(plan, index);
    go_on();
  }
  /// The same in pieces, for a cooperative launch: go_on() returns when the block has ended, or parked because all its
  /// threads wait in grid_barrier(). `plan` lives until the block has ended.
  void begin(const LaunchPlan& plan, std::int64_t index);
  void go_on();
  bool parked() const { return parked_file_ != nullptr; }
  bool parked_like(const Block& other) const;
  /// Which kernel and block, and the place of its grid_barrier().
  std::string parked_at() const;
  /// Gives a parked block up.
  void drop();

  // ---- called by the words, on a fiber
  void barrier(const char* file, int line);
  void grid_barrier(const char* file, int line);
  void meet(const char* what, unsigned mask, const Deposit& deposit, Meeting compute);
  void yield();
  /// yield() of a thread that waits for what another one writes.
  void pause(const char* file, int line);
  void* dynamic_shared(std::size_t bytes, std::size_t alignment, const char* file, int line);
  void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* file, int line);
  void copy_async(void* to, const void* from, bool valid, std::uint32_t code);
  void commit();
  void wait(int still_in_flight);
  void fence_for_products() { ++fibers_[std::size_t(current_)].product_fences; }
  Products& products(int thread) { return fibers_[std::size_t(thread)].products; }
  /// What lies at an offset of the shared arena. A fault names `what` when 16 bytes there are not shared memory, or, at a
  /// product's issue, were written by a thread that has not called fence_for_products() since (plain writes: where a watcher sees them).
  const char* product_operand(std::size_t offset, const char* what, bool at_issue, const char* file, int line);
  /// A thread wrote shared memory: a product sees that only behind its fence_for_products(). Of several writers of the same
  /// 16 bytes the last one is remembered.
  void note_write(int thread, std::size_t offset, std::size_t bytes);
  bool in_shared(const void* p, std::size_t bytes) const;
  bool on_stack(int thread, const void* p) const { return stacks_[std::size_t(thread)]->holds(p); }
  /// Offset from the begin of the shared arena, or -1.
  std::int64_t shared_offset(const void* p) const;
  /// "byte 12 of the dynamic shared memory (256 bytes)", or how far outside p is.
  std::string describe_shared(const void* p) const;
  int threads() const { return threads_; }
  int current() const { return current_; }
  /// Ends the block: leaves the fiber for good. `text` says what is wrong and what to do. No exception is thrown,
  /// because the calls that instrumentation makes may not throw.
  [[noreturn]] void fault(const std::string& text, const char* file, int line);
  /// The same with places in the program: of the access, and of an earlier one (0: none) made by `other`.
  [[noreturn]] void fault_at(const std::string& text, std::uint32_t code, std::uint32_t other_code,
                             const std::string& other);
  /// For the signal handler: the running thread touched `address`, where no memory is.
  [[noreturn]] void bad_address(const void* address);

  // ---- called by other OS threads
  /// Counts switches between threads; stands still while one runs.
  std::uint64_t progress() const { return progress_.load(std::memory_order_relaxed); }
  bool busy() const { return busy_.load(std::memory_order_acquire); }
  /// Which kernel, block and thread runs. Reads without a lock: for a block that stands still.
  std::string where_now() const { return where(current_, nullptr, 0); }

 private:
  static void entry();
  void start_thread(int thread);
  void set_indices(int thread);
  int next_runnable();
  void suspend(State state, const char* file, int line);
  [[noreturn]] void leave(int to);
  void finish_thread();
  bool all_at_barrier(State state, const char* file, int line);
  void make_all_ready();
  void fill_shared(std::size_t dynamic_bytes);
  void poison_shared(bool poison);
  void check_products_done();
  void count_switch() { progress_.store(progress_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed); }
  std::string where(int thread, const char* file, int line) const;
  std::string census() const;
  std::string told() const;
  [[noreturn]] void abandon();

  const LaunchPlan* plan_ = nullptr;
  std::int64_t number_ = 0;  // of the block in its launch
  uint3 index_{};
  const char* parked_file_ = nullptr;  // of the grid_barrier() where all threads wait
  int parked_line_ = 0;
  std::int64_t pauses_ = 0;  // in a row, with nothing else between them
  int threads_ = 0, current_ = 0, done_ = 0, waiting_ = 0;
  std::uint64_t random_ = 0;
  std::vector<std::unique_ptr<Stack>> stacks_;
  std::vector<Fiber> fibers_;
  std::vector<std::uint64_t> runnable_;   // one bit per thread
  std::vector<unsigned> arrived_, gone_;  // one word per warp
  Context main_;
  std::atomic<std::uint64_t> progress_{0};
  std::atomic<bool> busy_{false};
  // A fault: its text, and places in the program that are looked up when the block has been left.
  std::string fault_, other_;
  std::uint32_t code_ = 0, other_code_ = 0;
  std::optional<const void*> bad_address_;  // which may be null
  // Shared memory: redzone, dynamic, redzone, static pieces each with a redzone behind it.
  char* shared_ = nullptr;
  std::size_t dynamic_bytes_ = 0, used_ = 0;
  struct Piece {
    const void* key;
    std::size_t offset, bytes;
  };
  std::vector<Piece> pieces_;
  /// Who wrote 16 bytes of shared memory last, in which run of a block, and how often that thread had fenced before.
  struct Landing {
    std::uint32_t run = 0, fences = 0;
    int thread = 0;
  };
  std::vector<Landing> landings_;
  std::uint32_t run_ = 0;
};

/// The block that runs on this OS thread, or null between launches.
Block* running_block();

/// Makes a stack overflow or a wild pointer of a kernel a fault instead of the end of the process. Called on every OS
/// thread before it runs blocks; does nothing under AddressSanitizer, which has a report of its own.
void catch_bad_addresses();

/// Tells when a thread of a block runs for long without letting others run, which on fibers means for ever.
namespace watchdog {
void add(const Block* block);
void remove(const Block* block);
/// Who is told, after how long. The default writes to stderr after 10 seconds.
void set(void (*tell)(const std::string& text), int milliseconds);
}  // namespace watchdog

}  // namespace eg::emulated
