// tests/emulated/test_ordered_sum.cpp - the sum over ranks is that of a loop in ascending order, bit for bit.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/emulated/runtime.h"
#include "cuda/kernels/ordered_sum.h"
#include "engine/error.h"

namespace eg::emulated_backend {
namespace {

/// Numbers whose sum depends on the order: magnitudes over twelve orders.
double uneven(std::int64_t i) {
  const double u = double((std::uint64_t(i) * 2654435761u) % 1000003u) / 1000003.0;
  return (u - 0.5) * std::pow(10.0, double(i % 13) - 6.0);
}

template <class T, class Sum>
void check_sum(std::int64_t n, std::int64_t stride, int ranks, std::int64_t shift) {
  DeviceRuntime& r = emulated::emulated_runtime();
  std::vector<T> parts(std::size_t(stride * ranks + shift)), out(std::size_t(n + shift), T(0.0f)), want = out;
  for (std::size_t i = 0; i < parts.size(); ++i) parts[i] = T(float(uneven(std::int64_t(i))));
  for (std::int64_t i = 0; i < n; ++i) {
    Sum sum = Sum(parts[std::size_t(shift + i)]);
    for (int k = 1; k < ranks; ++k) sum += Sum(parts[std::size_t(shift + k * stride + i)]);
    want[std::size_t(shift + i)] = T(sum);
  }
  auto* from = static_cast<T*>(r.allocate(parts.size() * sizeof(T)));
  auto* to = static_cast<T*>(r.allocate(out.size() * sizeof(T)));
  r.copy_from_host(from, parts.data(), parts.size() * sizeof(T), {});
  r.copy_from_host(to, out.data(), out.size() * sizeof(T), {});
  ordered_sum(from + shift, to + shift, n, stride, ranks, dtype_of<T>, {});
  r.copy_to_host(out.data(), to, out.size() * sizeof(T), {});
  r.synchronize({});
  CHECK(std::memcmp(out.data(), want.data(), out.size() * sizeof(T)) == 0);
  r.release(from), r.release(to);
}

}  // namespace

TEST_CASE("ordered sum: equals a loop, in every type, size and alignment") {
  for (const int ranks : {1, 2, 3, 8}) {
    for (const std::int64_t n : {1, 7, 8, 33, 1000}) {
      for (const std::int64_t more : {0, 3}) {  // rows longer than what counts of them
        for (const std::int64_t shift : {0, 1}) {
          CAPTURE(ranks);
          CAPTURE(n);
          CAPTURE(more);
          CAPTURE(shift);
          check_sum<float, float>(n, n + more, ranks, shift);
          check_sum<bf16, float>(n, n + more, ranks, shift);
          check_sum<double, double>(n, n + more, ranks, shift);
        }
      }
    }
  }
  check_sum<float, float>(4096, 4096, 4, 0);
  check_sum<bf16, float>(4096, 4096, 4, 0);
}

TEST_CASE("ordered sum: nothing to do, and what cannot be summed") {
  ordered_sum(nullptr, nullptr, 0, 0, 2, DType::f32, {});
  CHECK_THROWS_AS(ordered_sum(nullptr, nullptr, 1, 1, 2, DType::i32, {}), Error);
}

}  // namespace eg::emulated_backend
