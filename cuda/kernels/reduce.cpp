// cuda/kernels/reduce.cpp - host entries of reduce.cu.
#include "cuda/kernels/reduce.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void finish_columns(const float* partials, std::int64_t chunks, std::int64_t columns, const Operand& out,
                    bool accumulate, Stream s) {
  if (columns == 0) return;
  FinishColumnsParams p;
  p.partials = partials, p.out = out, p.chunks = chunks, p.columns = columns, p.accumulate = accumulate;
  const unsigned threads = unsigned(min_of<std::int64_t>((columns + 31) / 32 * 32, 256));
  launch("finish_columns", finish_columns_kernel(), dim3(unsigned((columns + threads - 1) / threads)), dim3(threads), 0,
         s, p);
}

void sum_columns(const char* name, ColumnSumParams p, Stream s) {
  if (p.columns == 0) return;
  const std::int64_t chunks = max_of<std::int64_t>(1, min_of<std::int64_t>(p.rows / 256, 64));
  p.partials =
      chunks > 1 ? static_cast<float*>(scratch(s, std::size_t(chunks * p.columns) * sizeof(float)).data) : nullptr;
  const dim3 grid(unsigned((p.columns + kColumns - 1) / kColumns), unsigned(chunks));
  launch(name, column_sum_kernel(), grid, dim3(kColumns, kRowLanes), 0, s, p);
  if (p.partials) finish_columns(p.partials, chunks, p.columns, p.out, p.accumulate, s);
}

void column_sum(const ColumnSum& a, Stream s) {
  ColumnSumParams p;
  p.x = operand(a.x), p.out = operand(a.out);
  p.rows = a.x.rows(), p.columns = p.row_stride = a.x.cols(), p.offset = 0, p.accumulate = a.accumulate;
  sum_columns("column_sum", p, s);
}

namespace {
void sum_all(const char* name, const TensorView& a, const TensorView& b, const TensorView& out, double scale,
             Stream s) {
  SumParams p;
  p.a = operand(a), p.b = operand(b), p.out = operand(out);
  p.n = a.size(), p.scale = scale, p.wide = wide_access({&a, &b});
  const std::int64_t packs = (p.n + kPack - 1) / kPack;
  p.blocks = int(min_of<std::int64_t>((packs + kSumThreads - 1) / kSumThreads, kSumBlocks));
  p.partials = static_cast<double*>(scratch(s, kSumBlocks * sizeof(double)).data);
  launch(name, sum_kernel(), dim3(unsigned(p.blocks)), dim3(kSumThreads), 0, s, p);
  launch(name, finish_sum_kernel(), dim3(1), dim3(kSumThreads), 0, s, p);
}
}  // namespace

void mean(const Mean& a, Stream s) {
  const std::int64_t n = a.x.size();
  sum_all("mean", a.x, {}, a.out, n == 0 ? 0.0 : a.scale / double(n), s);
}
void dot(const Dot& a, Stream s) { sum_all("dot", a.a, a.b, a.out, 1.0, s); }

void unit_statistics(const UnitStatistics& a, Stream s) {
  UnitStatisticsParams p;
  p.z = operand(a.z), p.rows = a.z.rows(), p.columns = a.z.cols();
  p.positive = a.positive.as<double>(), p.alive_magnitude = a.alive_magnitude.as<double>();
  p.alive_gradient = a.alive_gradient.as<double>(), p.sum_abs = a.sum_abs.as<double>(),
  p.max_value = a.max_value.as<double>();
  p.tau = float(a.tau), p.tanh_form = a.kind == GeluKind::tanh;
  launch("unit_statistics", unit_statistics_kernel(), dim3(unsigned((p.columns + kColumns - 1) / kColumns)),
         dim3(kColumns, kRowLanes), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
