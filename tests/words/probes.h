// tests/words/probes.h - one small kernel per word of cuda/simt.cuh; what it must give is computed in the tests.
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
/// Of cell[0] every thread takes what was there and leaves its number + 1; cell[1] becomes the largest thread - 50;
/// in_block[block] = how many threads its shared memory counted. At most 1024 threads in all.
struct CellProbe {
  unsigned* cell;
  int* largest;
  unsigned *taken, *in_block;
};
/// out[3 i + {0, 1, 2}] = bits set in in[i], number of the lowest (from 1), zeros above the highest.
struct BitsProbe {
  const std::uint32_t* in;
  std::uint32_t* out;
  int n;
};
/// in[n] copied by accesses of 16, 8 and 4 bytes to out[0], out[1], out[2] of [3][n]; n a multiple of 8 threads.
struct WideProbe {
  const std::uint16_t* in;
  std::uint16_t* out;
  std::int64_t n;
};
/// out[i] = Philox of counter[i] under keys[i]; draws[i] = draw i of the stream `key`.
struct PhiloxProbe {
  const std::uint32_t *counter, *keys;  // [n][4], [n][2]
  std::uint32_t *out, *draws;           // [n][4], [n]
  std::uint64_t seed;
  std::uint32_t stream, step;
  int n;
};
/// out[4 i + {0, 1, 2, 3}] = exp2_fast, log2_fast(|x|), rsqrt_fast(|x|), reciprocal_fast of x = in[i].
struct FastProbe {
  const float* in;
  float* out;
  int n;
};

/// A cooperative launch, one value a thread: `rounds` times every block adds its neighbour's values to its own. out holds
/// the values afterwards, and then how many rounds the block's shared memory counted.
struct GridProbe {
  const float* in;
  float *between, *out;  // [blocks][threads]; [blocks][threads] and [blocks]
  int rounds;
};
/// Thread 0 pauses until the last thread, in another warp, has set the flag to 41; out[0] = the flag + 1.
struct PauseProbe {
  unsigned *flag, *out;
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
void (*cell_probe())(CellProbe);
void (*bits_probe())(BitsProbe);
void (*wide_probe())(WideProbe);
void (*philox_probe())(PhiloxProbe);
void (*fast_probe())(FastProbe);
void (*grid_probe())(GridProbe);
void (*pause_probe())(PauseProbe);

}  // namespace eg::EVERGRAD_BACKEND
