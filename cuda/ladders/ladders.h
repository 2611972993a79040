// cuda/ladders/ladders.h - parameters and kernels of the ladders (engine/ladder.h). What they take is bf16, aligned, with
// widths that are multiples of 8, so that each rung shows its idea and no special cases.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

/// c[M,N] = a[M,K] b[K,N], all row by row.
struct LadderProduct {
  const bf16 *a, *b;
  bf16* c;
  int rows, cols, depth;
};
void (*product_by_thread())(LadderProduct);    // 16 x 16 threads, one output each
void (*product_by_tile())(LadderProduct);      // 32 x 32 threads, one output each
void (*product_by_register())(LadderProduct);  // 256 threads, 64 x 64 outputs
void (*product_by_mma())(LadderProduct);       // 128 threads, 64 x 64 outputs
void (*product_by_ldmatrix())(LadderProduct);  // 128 threads, 64 x 64 outputs

/// qkv [B,N,3,H,D], out [B,N,H,D], lse [B,H,N]; scores [B,H,N,N] for the first rung alone.
struct LadderAttention {
  const bf16* qkv;
  bf16* out;
  float *lse, *scores;
  int images, tokens, heads, width;
  float scale;
};
void (*attention_scores())(LadderAttention);        // first rung: a thread per score,
void (*attention_softmax())(LadderAttention);       // a thread per row,
void (*attention_mix())(LadderAttention);           // a thread per number of the result
void (*attention_online())(LadderAttention);        // second: a thread per query
void (*attention_shared())(LadderAttention);        // third: the same, keys and values in shared memory; 64 threads
void (*attention_tensor_cores())(LadderAttention);  // fourth: a warp per 16 queries; 128 threads

/// y = (x - mean) rstd gamma + beta over rows of C <= 1024.
struct LadderNorm {
  const bf16 *x, *gamma, *beta;
  bf16* y;
  float *mean, *rstd;
  int rows, columns;
  float eps;
};
void (*norm_by_thread())(LadderNorm);     // a thread per row
void (*norm_by_warp())(LadderNorm);       // a warp per row, four in a block
void (*norm_in_registers())(LadderNorm);  // the same, the row read once

/// No ladder, but what the rungs are measured against: `out` takes one number per thread.
struct LadderCeiling {
  float* out;
  int rounds;
  float factor;  // of the fp32 chains; not known to the compiler
};
void (*ceiling_tensor_cores())(LadderCeiling);  // kCeilingThreads threads, kCeilingProducts products a warp and round
void (*ceiling_fp32())(LadderCeiling);          // kCeilingThreads threads, kCeilingChains multiply-adds each a round
inline constexpr int kCeilingThreads = 128, kCeilingProducts = 8, kCeilingChains = 16;

inline constexpr int kLadderTile = 32, kLadderWide = 64, kLadderWidth = 128, kLadderColumns = 1024;

}  // namespace eg::EVERGRAD_BACKEND
