// cuda/emulated/launch.cpp - cuda/launch.h and cuda/scratch.h for the emulated device.
#include "cuda/launch.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/emulated/block.h"
#include "cuda/emulated/heap.h"
#include "cuda/emulated/streams.h"
#include "cuda/scratch.h"
#include "engine/error.h"
#include "engine/parallel.h"

namespace eg::EVERGRAD_BACKEND {
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
  if (r.shared_bytes > 227 * 1024) refuse("shared memory", r.shared_bytes, 227 * 1024);
  check(threads > 0, Kind::usage, [&] { return cat("kernel ", r.name, ": a block without threads"); });
  check(r.kernel != nullptr, Kind::internal, [&] { return cat("kernel ", r.name, ": no kernel was chosen"); });
}

/// A launch with its own copy of name and parameters: what a queue or a recording keeps.
struct Kept {
  std::string name;
  std::vector<std::byte> parameters;
  LaunchPlan plan;
};

void run(const Kept& kept) {
  LaunchPlan plan = kept.plan;
  plan.name = kept.name.c_str(), plan.parameters = kept.parameters.data(),
  plan.schedule = emulated::settings().schedule;
  const std::int64_t blocks = std::int64_t(plan.grid.x) * plan.grid.y * plan.grid.z;
  const std::int64_t threads = std::int64_t(plan.block.x) * plan.block.y * plan.block.z;
  const auto work = [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    static thread_local std::unique_ptr<Block> block;
    if (!block) block = std::make_unique<Block>();
    for (std::int64_t i = begin; i < end; ++i)
      block->run(plan, plan.schedule.random && emulated::settings().workers == 1 ? blocks - 1 - i : i);
  };
  // Waking threads costs more than a small grid.
  if (emulated::settings().workers == 1 || blocks == 1 || blocks * threads < 2048)
    work(0, blocks, 0);
  else
    parallel_for(blocks, 1, work);
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
  kept->plan.shared_bytes = r.shared_bytes, kept->plan.parameter_bytes = r.parameter_bytes;
  emulated::Streams::instance().enqueue(stream, {kept->name, [kept] { run(*kept); }});
}

Scratch scratch(Stream stream, std::size_t bytes, std::size_t tickets) {
  struct Held {
    void* data = nullptr;
    std::size_t bytes = 0;
    unsigned* tickets = nullptr;
    std::size_t count = 0;
  };
  static std::mutex mutex;
  static std::map<void*, Held> by_stream;
  const std::lock_guard lock(mutex);
  Held& held = by_stream[stream.handle];
  emulated::Heap& heap = emulated::Heap::instance();
  emulated::Streams& streams = emulated::Streams::instance();
  if (held.bytes < bytes) {
    streams.refuse_while_capturing("growing a kernel's scratch memory");
    streams.synchronize(stream);  // earlier launches may still use the old block
    heap.release(held.data);
    held.data = heap.allocate(bytes), held.bytes = bytes;
  }
  if (held.count < tickets) {
    streams.refuse_while_capturing("growing a kernel's tickets");
    streams.synchronize(stream);
    heap.release(held.tickets);
    held.tickets = static_cast<unsigned*>(heap.allocate(tickets * sizeof(unsigned))), held.count = tickets;
    std::memset(held.tickets, 0, tickets * sizeof(unsigned));
  }
  return {held.data, held.tickets};
}

}  // namespace eg::EVERGRAD_BACKEND
