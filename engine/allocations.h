// engine/allocations.h - how often devices with memory of their own were asked for some: a training loop that has found
// its memory asks no more (cudaMalloc takes as long as a small step, and cudaFree waits for the device).
#pragma once
#include <atomic>
#include <cstdint>

namespace eg {

namespace detail {
inline std::atomic<std::int64_t> device_allocation_count{0};
}

/// Since the process began, all devices together; host memory does not count.
inline std::int64_t device_allocations() { return detail::device_allocation_count.load(std::memory_order_relaxed); }
/// For runtimes.
inline void count_device_allocation() { detail::device_allocation_count.fetch_add(1, std::memory_order_relaxed); }

}  // namespace eg
