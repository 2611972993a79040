// engine/parallel.cpp - a persistent pool that hands out fixed chunks through an atomic counter.
//
// Workers spin for a short while before they sleep: a training step has thousands of parallel regions a few tens of
// microseconds apart, and waking a sleeping thread costs about as much as such a region.
#include "engine/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/error.h"

namespace eg {
namespace {

int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, int(std::thread::hardware_concurrency()));
}

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

thread_local bool inside_region = false;

class Pool {
 public:
  explicit Pool(int threads) : threads_(threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& t : workers_) t.join();
  }
  int threads() const { return threads_; }

  void run(std::int64_t n, std::int64_t grain, detail::ChunkFn fn, const void* body) {
    const std::lock_guard region(region_mutex_);  // one region at a time; callers from other threads queue up
    n_ = n, grain_ = grain, fn_ = fn, body_ = body, count_ = chunks_of(n, grain);
    error_ = nullptr;
    error_chunk_ = std::numeric_limits<std::int64_t>::max();
    next_.store(0, std::memory_order_relaxed);
    busy_.store(threads_ - 1, std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      epoch_.fetch_add(1, std::memory_order_release);
    }
    if (sleeping_.load() > 0) wake_.notify_all();
    take_chunks();
    // A worker that lost its core to another process finishes sooner when this thread gives way.
    for (int i = 0; busy_.load(std::memory_order_acquire) != 0; ++i) i < kSpins ? relax() : std::this_thread::yield();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr int kSpins = 20000;  // roughly 50 to 100 microseconds

  void take_chunks() {
    inside_region = true;
    for (;;) {
      const std::int64_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= count_) break;
      try {
        fn_(body_, chunk * grain_, std::min(n_, (chunk + 1) * grain_), chunk);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (chunk < error_chunk_) error_ = std::current_exception(), error_chunk_ = chunk;
      }
    }
    inside_region = false;
  }

  void work() {
    std::uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < kSpins && epoch_.load(std::memory_order_acquire) == seen; ++i) relax();
      if (epoch_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen; });
        sleeping_.fetch_sub(1);
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stopping_) return;
      take_chunks();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int threads_;
  std::vector<std::thread> workers_;
  std::mutex region_mutex_, mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> epoch_{0};
  std::atomic<int> sleeping_{0}, busy_{0};
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> stopping_{false};
  std::int64_t n_ = 0, grain_ = 1, count_ = 0;
  detail::ChunkFn fn_ = nullptr;
  const void* body_ = nullptr;
  std::exception_ptr error_;
  std::int64_t error_chunk_ = 0;
};

std::mutex pool_mutex;
std::unique_ptr<Pool> the_pool;

Pool& current_pool() {
  const std::lock_guard lock(pool_mutex);
  if (!the_pool) the_pool = std::make_unique<Pool>(usable_cores());
  return *the_pool;
}

}  // namespace

void set_num_threads(int threads) {
  check(threads >= 0 && threads <= 1024, Kind::usage,
        [&] { return cat("--threads must be between 0 (all cores) and 1024, got ", threads); });
  const int wanted = threads == 0 ? usable_cores() : threads;
  const std::lock_guard lock(pool_mutex);
  if (the_pool && the_pool->threads() == wanted) return;
  the_pool.reset();
  the_pool = std::make_unique<Pool>(wanted);
}

int num_threads() { return current_pool().threads(); }

void detail::run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, const void* body) {
  grain = std::max<std::int64_t>(1, grain);
  const std::int64_t count = chunks_of(n, grain);
  Pool* const p = count == 1 || inside_region ? nullptr : &current_pool();
  if (p && p->threads() > 1) return p->run(n, grain, fn, body);
  for (std::int64_t chunk = 0; chunk < count; ++chunk) fn(body, chunk * grain, std::min(n, (chunk + 1) * grain), chunk);
}

}  // namespace eg
