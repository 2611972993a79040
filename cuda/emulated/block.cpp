// cuda/emulated/block.cpp - see block.h.
//
// A fiber that waits hands over directly to the next one that can run. Who that is comes from the schedule:
// round-robin, or drawn from (seed, block), which every program that is right must survive with the same bits.
#include "cuda/emulated/block.h"

#include <algorithm>
#include <cstring>

#include "cuda/emulated/poison.h"
#include "engine/error.h"

constinit thread_local uint3 threadIdx{};
constinit thread_local uint3 blockIdx{};
constinit thread_local dim3 blockDim{};
constinit thread_local dim3 gridDim{};

namespace eg::emulated {
namespace {

thread_local Block* t_block = nullptr;

std::uint64_t mixed(std::uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

const Watcher* watcher = nullptr;

Block* running_block() { return t_block; }

void Block::begin(const LaunchPlan& plan, std::int64_t index) {
  plan_ = &plan, number_ = index;
  const dim3 g = plan.grid, b = plan.block;
  index_ = {unsigned(index % g.x), unsigned(index / g.x % g.y), unsigned(index / (std::int64_t(g.x) * g.y))};
  threads_ = int(b.x * b.y * b.z), done_ = waiting_ = current_ = 0;
  parked_file_ = nullptr, pauses_ = 0;
  random_ = mixed(plan.schedule.seed * 0x10001 + std::uint64_t(index));
  while (int(stacks_.size()) < threads_) stacks_.push_back(std::make_unique<Stack>());
  if (int(fibers_.size()) < threads_) fibers_.resize(std::size_t(threads_));
  for (int t = 0; t < threads_; ++t) {
    Fiber& f = fibers_[std::size_t(t)];
    f.state = State::unstarted, f.copies.clear(), f.groups = 0;
    f.products = {}, f.product_fences = 0;
  }
  const std::size_t warps = std::size_t(threads_ + 31) / 32;
  arrived_.assign(warps, 0), gone_.assign(warps, 0);
  runnable_.assign(std::size_t(threads_ + 63) / 64, 0);
  fill_shared(plan.shared_bytes);
  ++run_;
  fault_.clear(), other_.clear();
  code_ = other_code_ = 0, bad_address_.reset();
  current_ = -1;
}

void Block::go_on() {
  blockIdx = index_, blockDim = plan_->block, gridDim = plan_->grid;
  if (watcher) watcher->begin_block(number_, threads_, parked());
  parked_file_ = nullptr;
  make_all_ready();
  t_block = this;
  const int first = next_runnable();
  Fiber& f = fibers_[std::size_t(first)];
  if (f.state == State::unstarted) start_thread(first);
  current_ = first;
  set_indices(first);
  busy_.store(true, std::memory_order_release);
  switch_to(main_, f.context);
  busy_.store(false, std::memory_order_release);
  t_block = nullptr;
  if (parked()) return;
  poison_shared(false);
  if (fault_.empty() && !bad_address_) return;
  drop();
  fail(Kind::internal, told());
}

// Frames that are never left keep their redzones poisoned.
void Block::drop() {
  parked_file_ = nullptr;
  poison_shared(false);
  for (int t = 0; t < threads_; ++t) unpoison(stacks_[std::size_t(t)]->bottom(), Stack::kBytes);
}

bool Block::parked_like(const Block& other) const {
  return parked() && other.parked() && parked_line_ == other.parked_line_ &&
         std::strcmp(parked_file_, other.parked_file_) == 0;
}

void Block::set_indices(int thread) {
  count_switch();
  const dim3 b = plan_->block;
  const unsigned t = unsigned(thread);
  threadIdx = {t % b.x, t / b.x % b.y, t / (b.x * b.y)};
}

void Block::start_thread(int thread) {
  Fiber& f = fibers_[std::size_t(thread)];
  // Stacks that begin at equal offsets in their pages would fight for the same cache sets.
  prepare(f.context, *stacks_[std::size_t(thread)], std::size_t(thread % 32) * 128, &Block::entry);
  f.state = State::ready;
}

void Block::entry() {
  Block& b = *t_block;
  arrived(b.fibers_[std::size_t(b.current_)].context, &b.main_);
  b.plan_->call(b.plan_->kernel, b.plan_->parameters);
  b.finish_thread();
}

void Block::finish_thread() {
  const int me = current_;
  Fiber& f = fibers_[std::size_t(me)];
  check_products_done();
  if (!f.copies.empty())
    fault("the thread exits with asynchronous copies in flight; call cp_async_wait<0>() before the end", nullptr, 0);
  if (waiting_ > 0)
    fault(cat("the thread exits while others wait at a barrier; every thread of the block must reach it", census()),
          nullptr, 0);
  f.state = State::done;
  pauses_ = 0;
  runnable_[std::size_t(me) / 64] &= ~(std::uint64_t(1) << (me % 64));
  gone_[std::size_t(me) / 32] |= 1u << (me % 32);
  if (++done_ == threads_) {
    switch_to(f.context, main_, true);
    __builtin_trap();
  }
  const int next = next_runnable();
  if (next < 0) fault(cat("deadlock: no thread can go on", census()), nullptr, 0);
  leave(next);
}

void Block::leave(int to) {
  Fiber& mine = fibers_[std::size_t(current_)];
  Fiber& f = fibers_[std::size_t(to)];
  if (f.state == State::unstarted) start_thread(to);
  current_ = to;
  set_indices(to);
  switch_to(mine.context, f.context, true);
  __builtin_trap();
}

int Block::next_runnable() {
  int start = current_ + 1 >= threads_ ? 0 : current_ + 1;
  if (plan_->schedule.random) {
    random_ = mixed(random_);
    start = int(random_ % std::uint64_t(threads_));
  }
  const std::size_t words = runnable_.size(), first = std::size_t(start) / 64;
  const std::uint64_t at_or_after = ~std::uint64_t(0) << (start % 64);
  if (const std::uint64_t bits = runnable_[first] & at_or_after) return int(first * 64) + __builtin_ctzll(bits);
  for (std::size_t i = 1; i <= words; ++i) {
    const std::size_t w = (first + i) % words;
    if (runnable_[w]) return int(w * 64) + __builtin_ctzll(runnable_[w]);
  }
  return -1;
}

void Block::suspend(State state, const char* file, int line) {
  const int me = current_;
  Fiber& f = fibers_[std::size_t(me)];
  f.state = state, f.file = file, f.line = line;
  if (state != State::ready) runnable_[std::size_t(me) / 64] &= ~(std::uint64_t(1) << (me % 64));
  const int next = next_runnable();
  if (next < 0) fault(cat("deadlock: no thread can go on", census()), file, line);
  if (next == me) {
    f.state = State::ready;
    return;
  }
  Fiber& to = fibers_[std::size_t(next)];
  if (to.state == State::unstarted) start_thread(next);
  current_ = next;
  set_indices(next);
  switch_to(f.context, to.context);
}

void Block::yield() { suspend(State::ready, nullptr, 0); }

// Fibers of one block take turns, so whoever writes what a thread waits for has had its turn long before this many pauses.
void Block::pause(const char* file, int line) {
  constexpr std::int64_t kMany = 1 << 22;
  if (++pauses_ > kMany)
    fault(cat("threads do nothing but spin_pause(), so no thread of this block writes what they wait for. Nothing "
              "promises that another block runs meanwhile: let the last block do the rest, or meet in grid_barrier()",
              census()),
          file, line);
  yield();
}

// Counts an arrival; true for the last one. All must have come to the same call.
bool Block::all_at_barrier(State state, const char* file, int line) {
  const char* const name = state == State::at_barrier ? "__syncthreads()" : "grid_barrier()";
  if (done_ > 0)
    fault(cat(name, " after ", done_, " threads of the block have exited; keep them and predicate their work"), file,
          line);
  pauses_ = 0;
  Fiber& f = fibers_[std::size_t(current_)];
  f.file = file, f.line = line;
  if (++waiting_ < threads_) {
    suspend(state, file, line);
    return false;
  }
  f.state = state;
  for (int t = 0; t < threads_; ++t) {
    const Fiber& other = fibers_[std::size_t(t)];
    if (other.state == state && other.line == line && (other.file == file || std::strcmp(other.file, file) == 0))
      continue;
    fault(cat("divergent ", name, ": the threads of the block wait at different calls", census()), file, line);
  }
  waiting_ = 0;
  return true;
}

void Block::make_all_ready() {
  for (int t = 0; t < threads_; ++t)
    if (State& s = fibers_[std::size_t(t)].state; s != State::unstarted) s = State::ready;
  std::fill(runnable_.begin(), runnable_.end(), ~std::uint64_t(0));
  if (threads_ % 64) runnable_.back() = (std::uint64_t(1) << (threads_ % 64)) - 1;
}

void Block::barrier(const char* file, int line) {
  if (!all_at_barrier(State::at_barrier, file, line)) return;
  if (watcher) watcher->barrier();
  make_all_ready();
  if (plan_->schedule.random) yield();  // the last to arrive need not be the first to go on
}

void Block::grid_barrier(const char* file, int line) {
  if (!plan_->cooperative)
    fault(
        "grid_barrier() in an ordinary launch, whose blocks need not be there at the same time; use "
        "launch_cooperative()",
        file, line);
  if (!all_at_barrier(State::at_grid_barrier, file, line)) return;
  parked_file_ = file, parked_line_ = line;
  switch_to(fibers_[std::size_t(current_)].context, main_);
}

void Block::meet(const char* what, unsigned mask, const Deposit& deposit, Meeting compute) {
  const int me = current_, lane = me % 32, first = me - lane;
  const std::size_t warp = std::size_t(me) / 32;
  const int lanes = std::min(32, threads_ - first);
  const unsigned present = lanes == 32 ? ~0u : (1u << lanes) - 1, bit = 1u << lane;
  const char* const file = deposit.file;
  const int line = deposit.line;
  if (!(mask & bit)) fault(cat(what, ": the mask does not name the calling lane ", lane), file, line);
  if (mask & ~present)
    fault(cat(what, ": the mask names lanes beyond the block of ", threads_, " threads"), file, line);
  if (mask & gone_[warp])
    fault(cat(what, ": the mask names lanes that have exited; exit whole warps, or predicate the work of single lanes"),
          file, line);
  Fiber* const group = fibers_.data() + first;
  Deposit& mine = group[lane].deposit;
  mine = deposit;
  mine.what = what, mine.mask = mask;
  if (const unsigned others = arrived_[warp] & mask) {
    const Deposit& other = group[__builtin_ctz(others)].deposit;
    if (other.what != what || other.mask != mask || other.width != mine.width || other.line != line ||
        (other.file != file && std::strcmp(other.file, file) != 0))
      fault(cat("lanes of one warp meet in different calls: ", what, " ", file, ":", line, " against ", other.what, " ",
                other.file, ":", other.line, other.mask == mask ? "" : ", with different masks"),
            file, line);
  }
  arrived_[warp] |= bit;
  pauses_ = 0;
  if ((arrived_[warp] & mask) != mask) {
    group[lane].file = file, group[lane].line = line;
    return suspend(State::in_meeting, file, line);
  }
  if (compute) {
    Deposit at[32];
    for (unsigned rest = mask; rest; rest &= rest - 1) at[__builtin_ctz(rest)] = group[__builtin_ctz(rest)].deposit;
    compute(at, mask);
  }
  arrived_[warp] &= ~mask;
  for (unsigned rest = mask; rest; rest &= rest - 1) group[__builtin_ctz(rest)].state = State::ready;
  runnable_[std::size_t(first) / 64] |= std::uint64_t(mask) << (first % 64);
  if (plan_->schedule.random) yield();
}

}  // namespace eg::emulated
