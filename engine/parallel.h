// engine/parallel.h - the one thread pool of the CPU device.
//
// parallel_for splits [0, n) into chunks of a fixed size that does not depend on the number of threads; a kernel whose
// chunks write disjoint memory is therefore bitwise the same on 1 and on 64 threads. Sums over chunks go through one
// partial per chunk, added in chunk order.
#pragma once
#include <cstdint>
#include <functional>
#include <type_traits>

namespace eg {

/// Sets the number of threads that parallel_for uses, the caller included. 0 means all cores this process may use.
void set_num_threads(int threads);
int num_threads();

namespace detail {
using ChunkFn = void (*)(const void* body, std::int64_t begin, std::int64_t end, std::int64_t chunk);
void run_chunks(std::int64_t n, std::int64_t grain, ChunkFn fn, const void* body);
}  // namespace detail

/// Calls body(begin, end, chunk) for every chunk of `grain` items; chunk = begin / grain. Exceptions of any chunk reach
/// the caller (the first in chunk order). A nested call runs on the calling thread.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, const Body& body) {
  if (n <= 0) return;
  detail::run_chunks(
      n, grain,
      [](const void* b, std::int64_t begin, std::int64_t end, std::int64_t chunk) {
        (*static_cast<const Body*>(b))(begin, end, chunk);
      },
      &body);
}

inline std::int64_t chunks_of(std::int64_t n, std::int64_t grain) { return (n + grain - 1) / grain; }

}  // namespace eg
