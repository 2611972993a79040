// tests/emulated/probes.h - one small kernel per word of cuda/simt.cuh; what it must give is computed in the tests.
#pragma once
#include "cuda/simt.cuh"

namespace eg::EVERGRAD_BACKEND {

enum class ShuffleKind : int { index, up, down, exclusive_or };
/// out[lane] = the shuffle of in[lane], for lanes of `mask`; one warp.
struct ShuffleProbe {
  const float* in;
  float* out;
  const double* in_wide;
  double* out_wide;
  ShuffleKind kind;
  int argument, width;
  unsigned mask;
};
/// out[3 lane + {0, 1, 2}] = ballot, any, all of predicate[lane], for lanes of `mask`; one warp.
struct VoteProbe {
  const int* predicate;
  unsigned* out;
  unsigned mask;
};
/// Per block and lane: four words of a, two of b, four sums; all as registers hold them.
struct MmaProbe {
  const std::uint32_t *a, *b;
  const float* c;
  float* d;
};
/// Per lane the words of ldmatrix: x4, x4_trans (4 each), x2, x2_trans (2 each) of four 8x8 matrices, 16 bytes a row.
struct LdmatrixProbe {
  const std::uint16_t* matrices;  // [4][8][8]
  std::uint32_t* out;             // [lane][12]
};
/// out[i] = bits of to_bf16(in[i]) + 2^16 bits of the upper half of pack_bf16(0, in[i]); back[i] = unpacked again.
struct ConvertProbe {
  const float* in;
  std::uint32_t* out;
  float* back;
  std::int64_t n;
};
/// 32 threads copy 16 bytes each in two groups (the second only where valid), and look after each wait.
struct CopyProbe {
  const std::uint32_t* in;  // [2][32][4]
  std::uint32_t* out;       // [3][32][4]: group 0 after wait<1>, group 0 and group 1 after wait<0>
};
/// Writes where it is: nine numbers per thread at its flat index.
struct IndexProbe {
  unsigned* out;
};
/// Sums and maxima over warps and the block, in float and double; 96 threads.
struct ReduceProbe {
  const float* in;
  float* out;        // [96][3]: warp_sum, warp_max, block_sum
  double* out_wide;  // [96][2]: warp_sum, block_sum of doubles
};
/// counters[0] += thread, counters[1] = max(thread), old[thread] = what add returned; any block.
struct AtomicProbe {
  unsigned* counters;
  unsigned* old;
};
/// Every thread keeps eight numbers across `rounds` barriers and adds its neighbour's; any block of up to 1024 threads.
struct KeepProbe {
  double* out;
  int rounds;
};
/// One thread counts to n and lets nobody else run.
struct SpinProbe {
  unsigned* out;
  std::int64_t n;
};
/// Calls itself `depth` times, with a kilobyte of locals each; out[0] = a number that depends on all of them.
struct DeepProbe {
  unsigned* out;
  int depth;
};
/// out[i] = in[i] + add.
struct AddProbe {
  const float* in;
  float* out;
  float add;
};

void (*shuffle_probe())(ShuffleProbe);
void (*vote_probe())(VoteProbe);
void (*mma_probe())(MmaProbe);
void (*ldmatrix_probe())(LdmatrixProbe);
void (*convert_probe())(ConvertProbe);
void (*copy_probe())(CopyProbe);
void (*index_probe())(IndexProbe);
void (*reduce_probe())(ReduceProbe);
void (*atomic_probe())(AtomicProbe);
void (*keep_probe())(KeepProbe);
void (*spin_probe())(SpinProbe);
void (*deep_probe())(DeepProbe);
void (*add_probe())(AddProbe);

}  // namespace eg::EVERGRAD_BACKEND
