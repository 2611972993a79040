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
inline constexpr int kMaxSections = 4;
/// out[s][c] (+)= sum over k of partials[k, s, c], in a fixed order; an absent output is left out.
struct FinishParams {
  const float* partials;
  Operand out[kMaxSections];
  std::int64_t chunks, columns;
  int sections;
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
  double *positive, *alive_magnitude, *alive_gradient, *sum_abs, *sum, *max_value, *row_count;
  std::int64_t rows, columns;
  float tau;
  bool tanh_form;
};

inline constexpr int kColumns = 32, kRowLanes = 8;  // threads of one block: columns across, rows down
inline constexpr int kSumThreads = 256, kSumBlocks = 128;

inline constexpr int kFinishLanes = 16;  // chunks that a block of the second stage adds at once

/// Columns that a block of 32 x 8 threads owns, and in how many chunks the rows are cut to keep a GPU busy.
inline std::int64_t columns_of_block(bool wide) { return wide ? kColumns * kPack : kColumns; }
std::int64_t chunks_of(std::int64_t rows, std::int64_t columns, bool wide);

/// wide: packs of `type` can be read.
void (*column_sum_kernel(bool wide, DType type))(ColumnSumParams);
/// A thread per column; blocks of 32 x up to kFinishLanes threads where columns are few and chunks many.
void (*finish_kernel(bool many_chunks))(FinishParams);
void (*sum_kernel())(SumParams);
void (*finish_sum_kernel())(SumParams);
void (*unit_statistics_kernel())(UnitStatisticsParams);

/// Second stage for any kernel that left `sections` partial rows per chunk, one for each of the outputs.
void finish_sections(FinishParams p, Stream s);
/// The same with one section.
void finish_columns(const float* partials, std::int64_t chunks, std::int64_t columns, const Operand& out,
                    bool accumulate, Stream s);
/// Both stages over some rows and columns of an array.
void sum_columns(const char* name, ColumnSumParams p, Stream s);

}  // namespace eg::EVERGRAD_BACKEND
