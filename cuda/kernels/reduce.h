// cuda/kernels/reduce.h - sums over rows, over everything, and the second stage that other kernels end with.
#pragma once
#include "cuda/kernels/operand.cuh"
#include "engine/device.h"

namespace eg::EVERGRAD_BACKEND {

/// out[c] (+)= sum over r of x[offset + r row_stride + c].
struct ColumnSumParams {
  Operand x, out;
  float* partials;  // [chunks, columns]; null with one chunk
  std::int64_t rows, columns, row_stride, offset;
  bool accumulate;
};
/// out[c] (+)= sum over k of partials[k, c], k in order.
struct FinishColumnsParams {
  const float* partials;
  Operand out;
  std::int64_t chunks, columns;
  bool accumulate;
};
/// out[0] = scale times the sum of a, or of a b.
struct SumParams {
  Operand a, b, out;
  double* partials;  // [blocks]
  double scale;
  std::int64_t n;
  int blocks;
  bool wide;
};
struct UnitStatisticsParams {
  Operand z;
  double *positive, *alive_magnitude, *alive_gradient, *sum_abs, *max_value;
  std::int64_t rows, columns;
  float tau;
  bool tanh_form;
};

inline constexpr int kColumns = 32, kRowLanes = 8;  // threads of one block: columns across, rows down
inline constexpr int kSumThreads = 256, kSumBlocks = 128;

void (*column_sum_kernel())(ColumnSumParams);
void (*finish_columns_kernel())(FinishColumnsParams);
void (*sum_kernel())(SumParams);
void (*finish_sum_kernel())(SumParams);
void (*unit_statistics_kernel())(UnitStatisticsParams);

/// Second stage for any kernel that left one partial row per chunk.
void finish_columns(const float* partials, std::int64_t chunks, std::int64_t columns, const Operand& out,
                    bool accumulate, Stream s);
/// Both stages over some rows and columns of an array.
void sum_columns(const char* name, ColumnSumParams p, Stream s);

}  // namespace eg::EVERGRAD_BACKEND
