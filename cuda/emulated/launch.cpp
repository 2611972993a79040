// cuda/emulated/launch.cpp - cuda/launch.h for the emulated device, and what cuda/scratch.h needs of it.
#include "cuda/launch.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "cuda/emulated/block.h"
#include "cuda/emulated/heap.h"
#include "cuda/emulated/poison.h"
#include "cuda/emulated/runtime.h"
#include "cuda/emulated/streams.h"
#include "cuda/scratch.h"
#include "engine/error.h"
#include "engine/parallel.h"

namespace eg::EVERGRAD_BACKEND {

std::size_t most_shared_bytes() { return emulated::settings().shared_bytes; }
// Few, so that a kernel that meets in grid_barrier() is tried with more work than blocks.
std::int64_t most_resident_blocks(void (*)(), int, std::size_t) { return 16; }

namespace {

using emulated::Block;
using emulated::LaunchPlan;

void check_limits(const LaunchRequest& r) {
  const auto refuse = [&](const char* what, auto have, auto limit) {
    fail(Kind::usage, cat("kernel ", r.name, ": ", what, " ", have, " exceeds the device's limit of ", limit));
  };
  const std::uint64_t threads = std::uint64_t(r.block.x) * r.block.y * r.block.z;
  if (threads > 1024) refuse("threads per block", threads, 1024);
  if (r.block.z > 64) refuse("block depth", r.block.z, 64);
  if (r.grid.x > 0x7fffffffu) refuse("grid width", r.grid.x, 0x7fffffff);
  if (r.grid.y > 65535) refuse("grid height", r.grid.y, 65535);
  if (r.grid.z > 65535) refuse("grid depth", r.grid.z, 65535);
  if (r.shared_bytes > most_shared_bytes()) refuse("shared memory", r.shared_bytes, most_shared_bytes());
  const std::uint64_t blocks = std::uint64_t(r.grid.x) * r.grid.y * r.grid.z;
  const auto resident = std::uint64_t(most_resident_blocks(r.kernel, int(threads), r.shared_bytes));
  if (r.cooperative && blocks > resident) refuse("blocks of a cooperative launch", blocks, resident);
  check(threads > 0, Kind::usage, [&] { return cat("kernel ", r.name, ": a block without threads"); });
  check(r.kernel != nullptr, Kind::internal, [&] { return cat("kernel ", r.name, ": no kernel was chosen"); });
}

/// A launch with its own copy of name and parameters: what a queue or a recording keeps.
struct Kept {
  std::string name;
  std::vector<std::byte> parameters;
  LaunchPlan plan;
};

/// Block number i of a random order: every number once, because `step` has no divisor in common with `blocks`.
struct BlockOrder {
  std::uint64_t first = 0, step = 1, blocks;
  BlockOrder(const emulated::Schedule& schedule, std::int64_t count) : blocks(std::uint64_t(count)) {
    if (!schedule.random || count < 2) return;
    const std::uint64_t draw = (schedule.seed + 1) * 0x9e3779b97f4a7c15ull;
    first = (draw >> 17) % blocks, step = (draw >> 33) % blocks;
    while (std::gcd(step, blocks) != 1) ++step;
  }
  std::int64_t at(std::int64_t i) const { return std::int64_t((first + std::uint64_t(i) * step) % blocks); }
};

/// Of a cooperative launch: one OS thread runs every block until it parks in grid_barrier(), again and again.
void run_together(const LaunchPlan& plan, std::int64_t blocks) {
  static thread_local std::vector<std::unique_ptr<Block>> resident;
  while (std::ssize(resident) < blocks) resident.push_back(std::make_unique<Block>());
  const std::span<std::unique_ptr<Block>> here(resident.data(), std::size_t(blocks));
  emulated::Schedule schedule = plan.schedule;
  emulated::catch_bad_addresses();
  try {
    for (std::int64_t i = 0; i < blocks; ++i) here[std::size_t(i)]->begin(plan, i);
    for (bool all_parked = true; all_parked; ++schedule.seed) {
      const BlockOrder order(schedule, blocks);
      for (std::int64_t i = 0; i < blocks; ++i) here[std::size_t(order.at(i))]->go_on();
      const auto is_parked = [](const auto& b) { return b->parked(); };
      const auto first = std::ranges::find_if(here, is_parked);
      all_parked = std::ranges::all_of(here, is_parked);
      check(all_parked || first == here.end(), Kind::internal, [&] {
        return cat((*first)->parked_at(), ": ", std::ranges::count_if(here, is_parked), " of ", blocks,
                   " blocks wait in grid_barrier(), and the others have ended; every block must come to it");
      });
      for (const auto& b : here)
        check(!all_parked || b->parked_like(*here[0]), Kind::internal,
              [&] { return cat("divergent grid_barrier(): ", here[0]->parked_at(), " against ", b->parked_at()); });
      if (all_parked && emulated::watcher) emulated::watcher->grid_barrier();
    }
  } catch (...) {
    for (const auto& b : here) b->drop();
    throw;
  }
}

void run(const Kept& kept) {
  const emulated::Settings& settings = emulated::settings();
  LaunchPlan plan = kept.plan;
  plan.name = kept.name.c_str(), plan.parameters = kept.parameters.data(), plan.schedule = settings.schedule;
  if (emulated::watcher) emulated::watcher->begin_launch(plan);
  const std::int64_t blocks = std::int64_t(plan.grid.x) * plan.grid.y * plan.grid.z;
  const std::int64_t threads = std::int64_t(plan.block.x) * plan.block.y * plan.block.z;
  if (plan.cooperative) return run_together(plan, blocks);
  const BlockOrder order(plan.schedule, blocks);
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    static thread_local std::unique_ptr<Block> block;
    if (!block) block = std::make_unique<Block>();
    emulated::catch_bad_addresses();
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) block->run(plan, order.at(i));
  };
  const std::int64_t workers = settings.workers > 0 ? settings.workers : num_threads();
  // Waking threads costs more than a small grid. The race detector takes notes for one OS thread only.
  if (emulated::watcher || workers == 1 || blocks == 1 || blocks * threads < 2048)
    work();
  else
    parallel_for(std::min(workers, blocks), 1, [&](std::int64_t, std::int64_t, std::int64_t) { work(); });
}

}  // namespace

void launch_checked(const LaunchRequest& r, Stream stream) {
  if (r.grid.x == 0 || r.grid.y == 0 || r.grid.z == 0) return;
  check_limits(r);
  auto kept = std::make_shared<Kept>();
  kept->name = r.name;
  kept->parameters.resize(r.parameter_bytes);
  std::memcpy(kept->parameters.data(), r.parameters, r.parameter_bytes);
  kept->plan.kernel = r.kernel, kept->plan.call = r.call, kept->plan.grid = r.grid, kept->plan.block = r.block;
  kept->plan.cooperative = r.cooperative;
  kept->plan.shared_bytes = r.shared_bytes, kept->plan.parameter_bytes = r.parameter_bytes;
  emulated::Streams::instance().enqueue(stream, {kept->name, [kept] { run(*kept); }});
}

namespace {

// Runs on the stream right before the kernel that asked: garbage in, nothing beyond what was asked for, tickets at
// zero.
void prepare(const ScratchBlocks& held, std::size_t bytes) {
  if (held.bytes) {
    // Before the unpoisoning, which would hide a block that was given back from AddressSanitizer.
    check(emulated::Heap::instance().holds(held.data, held.bytes), Kind::internal, [&] {
      return cat("a kernel's scratch memory of ", held.bytes,
                 " bytes was freed before its launch ran; a recording may hold it, so it must stay");
    });
    emulated::unpoison(held.data, held.bytes);
    std::memset(held.data, 0xFF, bytes);
    emulated::poison(static_cast<char*>(held.data) + bytes, held.bytes - bytes);
  }
  for (std::size_t i = 0; i < held.count; ++i) {
    const unsigned left = std::exchange(held.tickets[i], 0u);
    check(left == 0, Kind::internal, [&] {
      return cat("ticket ", i, " was left at ", left,
                 " by a kernel that ran before on this stream; its last block must set it back to zero");
    });
  }
}

}  // namespace

void* scratch_key(Stream stream) { return stream.handle; }
DeviceRuntime& scratch_device() { return emulated::emulated_runtime(); }
void before_scratch_use(const ScratchBlocks& held, std::size_t bytes, Stream stream) {
  emulated::Streams::instance().enqueue(stream, {"scratch memory", [held, bytes] { prepare(held, bytes); }});
}

}  // namespace eg::EVERGRAD_BACKEND
