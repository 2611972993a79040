// cuda/kernels/segments.h - host side of segments.cuh: segments, a launch's worth at a time.
#pragma once
#include <span>

#include "cuda/kernels/segments.cuh"

namespace eg::EVERGRAD_BACKEND {

/// Calls f(table, chunks) for groups of segments, empty ones left out.
template <class S, class F>
void for_each_table(std::span<const S> segments, std::int64_t chunk, const F& f) {
  TableOf<S> t;
  const auto clear = [&] { t.count = 0, t.first_chunk[0] = 0; };
  clear();
  for (const S& s : segments) {
    if (s.begin >= s.end) continue;
    t.segment[t.count] = s;
    t.first_chunk[t.count + 1] = t.first_chunk[t.count] + std::int32_t((s.end - s.begin + chunk - 1) / chunk);
    if (++t.count < TableOf<S>::kMost) continue;
    f(t, t.first_chunk[t.count]);
    clear();
  }
  if (t.count > 0) f(t, t.first_chunk[t.count]);
}

}  // namespace eg::EVERGRAD_BACKEND
