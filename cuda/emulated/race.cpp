// cuda/emulated/race.cpp - the hooks of -fsanitize=thread, and what an address may be; see race.h.
//
// A kernel may touch its block's shared memory, device memory, its own stack (locals and parameters), constants of the
// program, and the four index variables. Anything else is a pointer that went astray: most often a host pointer inside
// the parameters, or the address of another thread's local variable.
#include "cuda/emulated/race.h"

#include <cstring>
#include <map>

#include "cuda/emulated/block.h"
#include "cuda/emulated/heap.h"
#include "cuda/emulated/place.h"
#include "cuda/emulated/streams.h"
#include "engine/error.h"

extern char __executable_start, _end;  // of the program, from the linker

namespace eg::emulated {
namespace {

struct Detector {
  race::Clock clock;
  std::map<std::uint32_t, race::SharedShadow> shared_of;  // of the blocks of a cooperative launch; else only number 0
  race::SharedShadow* shared = nullptr;
  bool cooperative = false;
  race::GlobalShadow global{clock};
};
Detector& detector() {
  static Detector* const d = [] {
    auto* const made = new Detector;
    made->global.reserve(Heap::instance().begin(), Heap::instance().reserved());
    return made;
  }();
  return *d;
}

/// Of two launches, copies or fills: how to order them.
constexpr const char* kOrderThem =
    "nothing orders the two: let the later stream wait for an event that is recorded after the earlier work (a block "
    "of a pool that another stream gets next needs that too), or let the host wait";

[[noreturn]] void tell(const race::Finding& f, const char* memory, const std::string& where, std::uint32_t code) {
  Block& b = *running_block();
  if (f.other)
    b.fault_at(
        cat("race in ", memory, " memory: ", f.what, " (", where, "), unordered with ", f.other, "; ", kOrderThem),
        code, f.code, f.other);
  if (f.thread < 0) b.fault_at(cat(f.what, ", at byte ", f.byte), code, 0, "");
  const char* const remedy =
      f.block >= 0 && detector().cooperative ? "a grid_barrier() is missing between the two"
      : f.block >= 0 ? "give every block a place of its own, or hand over: write, __syncthreads(), one thread "
                       "__threadfence() and atomicAdd(); the last block __threadfence(), then reads"
      : f.thread / 32 == b.current() / 32 ? "a __syncwarp() or __syncthreads() is missing between the two"
                                          : "a __syncthreads() is missing between the two";
  const std::string other = f.block >= 0 ? cat("block ", f.block, ", thread ", f.thread) : cat("thread ", f.thread);
  b.fault_at(cat("race in ", memory, " memory: ", f.what, " (", where, "), unordered with ", other, "; ", remedy), code,
             f.code, other);
}

bool inside(const void* p, const void* from, std::size_t bytes) {
  return p >= from && p < static_cast<const char*>(from) + bytes;
}
bool is_index_variable(const void* p) {
  return inside(p, &threadIdx, sizeof threadIdx) || inside(p, &blockIdx, sizeof blockIdx) ||
         inside(p, &blockDim, sizeof blockDim) || inside(p, &gridDim, sizeof gridDim);
}

[[noreturn]] void astray(Block& b, const void* p, std::uint32_t code) {
  for (int t = 0; t < b.threads(); ++t)
    if (b.on_stack(t, p))
      b.fault_at(cat("an access to a local variable of thread ", t,
                     ": locals are private to a thread; exchange values by shuffles or shared memory"),
                 code, 0, "");
  b.fault_at(p ? "an access to host memory: is a host pointer inside the parameters?"
               : "an access through a null pointer; is something missing in the parameters?",
             code, 0, "");
}

void access(int thread, const void* p, std::size_t bytes, bool is_write, std::uint32_t code) {
  Block& b = *running_block();
  if (is_index_variable(p) || b.on_stack(thread, p)) return;
  Detector& d = detector();
  if (const std::int64_t offset = b.shared_offset(p); offset >= 0) {
    if (!b.in_shared(p, bytes))
      b.fault_at(cat("an access of ", bytes, " bytes outside the block's shared memory (", b.describe_shared(p), ")"),
                 code, 0, "");
    if (is_write) b.note_write(thread, std::size_t(offset), bytes);
    const race::Finding f = d.shared->access(d.clock.now(thread, code), offset, bytes, is_write);
    if (f.what) tell(f, "shared", b.describe_shared(p), code);
    return;
  }
  Heap& heap = Heap::instance();
  if (heap.in_range(p)) {
    if (!heap.holds(p, bytes))
      b.fault_at(cat("an access of ", bytes, " bytes outside a device block (", heap.describe(p), ")"), code, 0, "");
    const race::Finding f = d.global.access(d.clock.now(thread, code), p, bytes, is_write);
    if (f.what) tell(f, "device", heap.describe(p), code);
    return;
  }
  if (p >= &__executable_start && p < &_end) return;  // constants
  astray(b, p, code);
}

void operation(const char* name, const void* p, std::size_t bytes, bool is_write) {
  Detector& d = detector();
  d.clock.block = 0, ++d.clock.epoch;
  d.clock.warp_epoch.assign(1, 0);
  d.global.begin_launch(Streams::instance().running(), name);
  d.global.begin_block(1);
  const race::Finding f = d.global.access(d.clock.now(0, 0), p, bytes, is_write);
  if (!f.what) return;
  const std::string place = f.code ? cat("\n  the access of ", f.other, ": ", place_of(f.code)) : "";
  fail(Kind::internal, cat(name, ": race in device memory: ", f.what, " (", Heap::instance().describe(p),
                           "), unordered with ", f.other, "; ", kOrderThem, place));
}

const Watcher kRaceDetector{
    .begin_launch =
        [](const LaunchPlan& plan) {
          detector().cooperative = plan.cooperative;
          detector().global.begin_launch(Streams::instance().running(), plan.name);
        },
    .begin_block =
        [](std::int64_t block, int threads, bool resumed) {
          Detector& d = detector();
          d.clock.block = std::uint32_t(block), ++d.clock.epoch;
          d.clock.warp_epoch.assign(std::size_t(threads), 0);
          d.shared = &d.shared_of.try_emplace(d.cooperative ? d.clock.block : 0u, d.clock).first->second;
          if (!resumed) d.shared->begin_block();
          d.global.begin_block(threads);
        },
    .barrier =
        [] {
          ++detector().clock.epoch;
          detector().global.barrier();
        },
    .grid_barrier = [] { detector().global.grid_barrier(); },
    .sync_warp =
        [](int first, unsigned mask) {
          for (; mask; mask &= mask - 1) ++detector().clock.warp_epoch[std::size_t(first + __builtin_ctz(mask))];
        },
    .fence = [](int thread) { detector().global.fence(thread); },
    .atomic = [](int thread) { detector().global.atomic(thread); },
    .access = access,
    .operation = operation,
    .settled = [] { detector().global.settled(); },
};
// Nothing but kernel files of the race build calls what this file defines, so it is linked into no other program.
[[maybe_unused]] const bool installed = [] {
  watcher = &kRaceDetector;
  return true;
}();

void watch(const volatile void* p, std::size_t bytes, bool is_write, const void* return_address) {
  Block* const b = running_block();  // null: an inline function that host code shares with a kernel
  if (b) access(b->current(), const_cast<const void*>(p), bytes, is_write, code_of(return_address));
}

}  // namespace
}  // namespace eg::emulated

#define EVERGRAD_HOOK(name, bytes, is_write) \
  void name(void* p) { eg::emulated::watch(p, bytes, is_write, __builtin_return_address(0)); }
#define EVERGRAD_HOOKS(bytes)                                        \
  EVERGRAD_HOOK(__tsan_read##bytes, bytes, false)                    \
  EVERGRAD_HOOK(__tsan_write##bytes, bytes, true)                    \
  EVERGRAD_HOOK(__tsan_unaligned_read##bytes, bytes, false)          \
  EVERGRAD_HOOK(__tsan_unaligned_write##bytes, bytes, true)          \
  EVERGRAD_HOOK(__tsan_volatile_read##bytes, bytes, false)           \
  EVERGRAD_HOOK(__tsan_volatile_write##bytes, bytes, true)           \
  EVERGRAD_HOOK(__tsan_unaligned_volatile_read##bytes, bytes, false) \
  EVERGRAD_HOOK(__tsan_unaligned_volatile_write##bytes, bytes, true)

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
EVERGRAD_HOOKS(1)
EVERGRAD_HOOKS(2)
EVERGRAD_HOOKS(4)
EVERGRAD_HOOKS(8)
EVERGRAD_HOOKS(16)
void __tsan_read_range(void* p, std::size_t bytes) {
  eg::emulated::watch(p, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* p, std::size_t bytes) {
  eg::emulated::watch(p, bytes, true, __builtin_return_address(0));
}
// clang calls these for what the compiler itself copies.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  eg::emulated::watch(from, bytes, false, __builtin_return_address(0));
  eg::emulated::watch(to, bytes, true, __builtin_return_address(0));
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  eg::emulated::watch(from, bytes, false, __builtin_return_address(0));
  eg::emulated::watch(to, bytes, true, __builtin_return_address(0));
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  eg::emulated::watch(to, bytes, true, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
#undef EVERGRAD_HOOKS
#undef EVERGRAD_HOOK
