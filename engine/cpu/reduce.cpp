// engine/cpu/reduce.cpp - column_sum, mean, dot: one partial per fixed chunk, added in order in double.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/reduce.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kGrain = 16384;  // elements per chunk of a sum to one number

/// Calls f with the typed pointer of an f32 or bf16 view.
template <class F>
void typed(const TensorView& x, const char* name, F&& f) {
  check(x.dtype == DType::f32 || x.dtype == DType::bf16, Kind::dtype,
        [&] { return cat(name, " on cpu takes f32 and bf16, got ", x, ": cast it first"); });
  if (x.dtype == DType::bf16)
    f(static_cast<const bf16*>(x.data));
  else
    f(static_cast<const float*>(x.data));
}

void store(const TensorView& out, std::int64_t i, double value, bool accumulate) {
  switch (out.dtype) {
    case DType::f32: {
      float& to = static_cast<float*>(out.data)[i];
      to = float(accumulate ? double(to) + value : value);
      return;
    }
    case DType::bf16: {
      bf16& to = static_cast<bf16*>(out.data)[i];
      to = bf16(accumulate ? double(to) + value : value);
      return;
    }
    case DType::f64: {
      double& to = static_cast<double*>(out.data)[i];
      to = accumulate ? to + value : value;
      return;
    }
    default: fail(Kind::dtype, cat("a sum on cpu cannot be stored in ", out));
  }
}

/// Adds part(begin, end) of all chunks of n elements in order.
template <class Part>
double sum_chunks(std::int64_t n, const Part& part) {
  std::vector<double> partials(std::size_t(chunks_of(n, kGrain)));
  parallel_for(n, kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    partials[std::size_t(chunk)] = part(begin, end);
  });
  double sum = 0.0;
  for (const double p : partials) sum += p;
  return sum;
}

}  // namespace

void column_sum(const ColumnSum& s, Stream) {
  const std::int64_t width = s.x.cols(), rows = s.x.rows();
  check(s.out.size() == width, Kind::shape,
        [&] { return cat("column_sum on cpu: ", s.x, " into ", s.out, " does not fit"); });
  // At least 32 Ki elements a chunk, and at most 256 chunks.
  const std::int64_t grain =
      std::max<std::int64_t>({1, 32768 / std::max<std::int64_t>(1, width), chunks_of(rows, 256)});
  const std::int64_t count = chunks_of(rows, grain);
  std::vector<float> partials(std::size_t(count * width));
  typed(s.x, "column_sum", [&](auto* x) {
    parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
      EVERGRAD_DISPATCH(column_sum_rows, x + begin * width, end - begin, width, partials.data() + chunk * width);
    });
  });
  parallel_for(width, 4096, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t c = begin; c < end; ++c) {
      double sum = 0.0;
      for (std::int64_t i = 0; i < count; ++i) sum += double(partials[std::size_t(i * width + c)]);
      store(s.out, c, sum, s.accumulate);
    }
  });
}

void mean(const Mean& m, Stream) {
  const std::int64_t n = m.x.size();
  double sum = 0.0;
  typed(m.x, "mean", [&](auto* x) {
    sum = sum_chunks(
        n, [&](std::int64_t begin, std::int64_t end) { return EVERGRAD_DISPATCH(sum_range, x + begin, end - begin); });
  });
  store(m.out, 0, n == 0 ? 0.0 : m.scale / double(n) * sum, false);
}

void dot(const Dot& d, Stream) {
  check(d.a.size() == d.b.size(), Kind::shape,
        [&] { return cat("dot on cpu: ", d.a, " and ", d.b, " differ in their number of elements"); });
  double sum = 0.0;
  typed(d.a, "dot", [&](auto* a) {
    typed(d.b, "dot", [&](auto* b) {
      sum = sum_chunks(d.a.size(), [&](std::int64_t begin, std::int64_t end) {
        return EVERGRAD_DISPATCH(dot_range, a + begin, b + begin, end - begin);
      });
    });
  });
  store(d.out, 0, sum, false);
}

}  // namespace eg::cpu
