// cuda/kernels/reduce.cpp - host entries of reduce.cu.
#include "cuda/kernels/reduce.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

std::int64_t chunks_of(std::int64_t rows, std::int64_t columns, bool wide) {
  constexpr std::int64_t kLeastRows = 64, kBlocks = 8 * 132;  // eight blocks a multiprocessor of an H100
  const std::int64_t across = max_of<std::int64_t>(1, ceil_div(columns, columns_of_block(wide)));
  return max_of<std::int64_t>(1, min_of<std::int64_t>(rows / kLeastRows, ceil_div(kBlocks, across)));
}

void finish_sections(FinishParams p, Stream s) {
  if (p.columns == 0) return;
  // One thread adds all chunks of a column, unless that leaves the GPU idle.
  const bool many = p.chunks > kFinishLanes / 2 && p.columns < 132 * 256;
  const unsigned sections = unsigned(p.sections);
  if (many) {
    const unsigned lanes = unsigned(min_of<std::int64_t>(p.chunks, kFinishLanes));
    launch("finish_chunks", finish_kernel(true), dim3(unsigned(ceil_div<std::int64_t>(p.columns, kColumns)), sections),
           dim3(kColumns, lanes), 0, s, p);
  } else {
    const unsigned threads = unsigned(min_of<std::int64_t>(ceil_div<std::int64_t>(p.columns, kWarp) * kWarp, 256));
    launch("finish_columns", finish_kernel(false), dim3(unsigned(ceil_div<std::int64_t>(p.columns, threads)), sections),
           dim3(threads), 0, s, p);
  }
}

void finish_columns(const float* partials, std::int64_t chunks, std::int64_t columns, const Operand& out,
                    bool accumulate, Stream s) {
  FinishParams p = {};
  p.partials = partials, p.out[0] = out, p.chunks = chunks, p.columns = columns, p.sections = 1;
  p.accumulate = accumulate;
  finish_sections(p, s);
}

namespace {
/// Packs can be read at every row: the array starts on 16 bytes, and no row or column leaves multiples of 8.
bool wide_columns(const ColumnSumParams& p) {
  return (p.x.type == DType::f32 || p.x.type == DType::bf16) && reinterpret_cast<std::uintptr_t>(p.x.data) % 16 == 0 &&
         p.columns % kPack == 0 && p.row_stride % kPack == 0 && p.offset % kPack == 0;
}
}  // namespace

void sum_columns(const char* name, ColumnSumParams p, Stream s) {
  if (p.columns == 0) return;
  const bool wide = wide_columns(p);
  const std::int64_t chunks = chunks_of(p.rows, p.columns, wide);
  p.partials =
      chunks > 1 ? static_cast<float*>(scratch(s, std::size_t(chunks * p.columns) * sizeof(float)).data) : nullptr;
  const dim3 grid(unsigned(ceil_div(p.columns, columns_of_block(wide))), unsigned(chunks));
  launch(name, column_sum_kernel(wide, p.x.type), grid, dim3(kColumns, kRowLanes), 0, s, p);
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
  p.alive_gradient = a.alive_gradient.as<double>(), p.sum_abs = a.sum_abs.as<double>();
  p.sum = a.sum.as<double>(), p.max_value = a.max_value.as<double>(), p.row_count = a.rows.as<double>();
  p.tau = float(a.tau), p.tanh_form = a.kind == GeluKind::tanh;
  launch("unit_statistics", unit_statistics_kernel(), dim3(unsigned((p.columns + kColumns - 1) / kColumns)),
         dim3(kColumns, kRowLanes), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
