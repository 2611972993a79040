// engine/collectives/ordered_sum.cpp - see ordered_sum.h.
#include "engine/collectives/ordered_sum.h"

#include <algorithm>
#include <array>

#include "engine/error.h"

namespace eg {
namespace {

/// Sum is the type of the arithmetic. In blocks, so that every part is read in stretches and the sums stay in cache.
template <class T, class Sum>
void add_up(std::span<const void* const> parts, void* out, std::int64_t count) {
  constexpr std::int64_t kBlock = 1024;
  std::array<Sum, kBlock> sums;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(parts[0]) + begin;
    for (std::int64_t i = 0; i < n; ++i) sums[std::size_t(i)] = Sum(first[i]);
    for (const void* part : parts.subspan(1)) {
      const T* values = static_cast<const T*>(part) + begin;
      for (std::int64_t i = 0; i < n; ++i) sums[std::size_t(i)] += Sum(values[i]);
    }
    T* to = static_cast<T*>(out) + begin;
    for (std::int64_t i = 0; i < n; ++i) to[i] = T(sums[std::size_t(i)]);
  }
}

}  // namespace

void check_summable(DType dtype, const char* operation) {
  check(dtype == DType::f32 || dtype == DType::f64 || dtype == DType::bf16, Kind::dtype,
        [&] { return cat(operation, " over ranks adds f32, f64 or bf16 numbers, not ", dtype); });
}

void ordered_sum(std::span<const void* const> parts, void* out, std::int64_t count, DType dtype) {
  check_summable(dtype, "a sum");
  if (parts.empty() || count <= 0) return;
  if (dtype == DType::f32) add_up<float, float>(parts, out, count);
  if (dtype == DType::f64) add_up<double, double>(parts, out, count);
  if (dtype == DType::bf16) add_up<bf16, float>(parts, out, count);
}

}  // namespace eg
