// cuda/kernels/reduce.cuh - sums down the columns of one chunk of rows: the first stage of every reduction over rows.
#pragma once
#include "cuda/kernels/layer_norm.cuh"
#include "cuda/kernels/reduce.h"

namespace eg::EVERGRAD_BACKEND {

#if EVERGRAD_HAS_DEVICE_WORDS

/// A row of a block: kColumns threads, each with kWidth neighbouring columns (8 where packs can be read, else 1).
template <int kWidth>
struct ColumnTile {
  float v[kRowLanes][kColumns * kWidth];
};

/// Adds this block's chunk of rows (blockIdx.y of gridDim.y) in its columns (blockIdx.x): add_row(r, c, sums) adds row
/// r's terms of columns c .. c + kWidth - 1. Then finish(column, sum) runs once per column. The order depends on the
/// shape alone.
template <int kWidth, class AddRow, class Finish>
__device__ __forceinline__ void sum_chunk(std::int64_t rows, std::int64_t columns, const AddRow& add_row,
                                          const Finish& finish) {
  constexpr int kAcross = kColumns * kWidth, kBatch = 4;  // rows whose loads are on their way together
  const std::int64_t c = std::int64_t(blockIdx.x) * kAcross + threadIdx.x * kWidth, chunks = gridDim.y,
                     chunk = blockIdx.y;
  const std::int64_t end = rows * (chunk + 1) / chunks;
  float sums[kWidth] = {};
  if (c < columns) {
    std::int64_t r = rows * chunk / chunks + threadIdx.y;
    for (; r + (kBatch - 1) * kRowLanes < end; r += kBatch * kRowLanes) {
      EVERGRAD_UNROLL
      for (int k = 0; k < kBatch; ++k) add_row(r + k * kRowLanes, c, sums);
    }
    for (; r < end; r += kRowLanes) add_row(r, c, sums);
  }
  ColumnTile<kWidth>& tile = static_shared<ColumnTile<kWidth>>();
  EVERGRAD_UNROLL
  for (int k = 0; k < kWidth; ++k) tile.v[threadIdx.y][threadIdx.x * kWidth + k] = sums[k];
  __syncthreads();
  const int own = int(threadIdx.y * kColumns + threadIdx.x);
  const std::int64_t column = std::int64_t(blockIdx.x) * kAcross + own;
  if (own >= kAcross || column >= columns) return;
  float total = 0.0f;
  EVERGRAD_UNROLL
  for (int lane = 0; lane < kRowLanes; ++lane) total += tile.v[lane][own];
  finish(column, total);
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
