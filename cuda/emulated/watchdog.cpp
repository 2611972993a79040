// cuda/emulated/watchdog.cpp - tells when a thread of a block never lets others run.
//
// Fibers are not preempted: a loop that waits for another thread without spin_pause() runs for ever. One sleeping OS
// thread looks at all blocks a few times per period; a block that has not switched since the last period is told, once.
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <thread>

#include "cuda/emulated/block.h"
#include "engine/error.h"

namespace eg::emulated::watchdog {
namespace {

using Clock = std::chrono::steady_clock;

struct Seen {
  std::uint64_t progress = 0;
  Clock::time_point since{};
  bool told = false;
};

struct Dog {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<const Block*, Seen> blocks;
  void (*tell)(const std::string&) = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
  std::chrono::milliseconds period{10000};
  bool started = false;

  void look() {
    const auto now = Clock::now();
    for (auto& [block, seen] : blocks) {
      if (!block->busy() || block->progress() != seen.progress) {
        seen = {block->progress(), now, false};
      } else if (!seen.told && now - seen.since >= period) {
        seen.told = true;
        tell(cat("emulated device: ", block->where_now(), " has run for ", period.count(),
                 " ms without letting another thread run; a loop that waits for others needs spin_pause()"));
      }
    }
  }
  void run() {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait_for(lock, period / 4);
      look();
    }
  }
};
Dog& dog() {
  static Dog* const d = new Dog;  // its thread runs until the process ends
  return *d;
}

}  // namespace

void add(const Block* block) {
  Dog& d = dog();
  const std::lock_guard lock(d.mutex);
  d.blocks[block] = {};
  if (d.started) return;
  d.started = true;
  std::thread([&d] { d.run(); }).detach();
}

void remove(const Block* block) {
  Dog& d = dog();
  const std::lock_guard lock(d.mutex);
  d.blocks.erase(block);
}

void set(void (*tell)(const std::string&), int milliseconds) {
  Dog& d = dog();
  const std::lock_guard lock(d.mutex);
  d.tell = tell, d.period = std::chrono::milliseconds(milliseconds);
  for (auto& [block, seen] : d.blocks) seen = {block->progress(), Clock::now(), false};
  d.changed.notify_all();
}

}  // namespace eg::emulated::watchdog
