// cuda/kernels/matmul.cu - bf16 matrix products on tensor cores, with what follows them in the same pass.
//
// Math     s = op(a) op(b), fp32 sums; c (+)= s, s + bias, gelu(s + bias) with aux = s + bias, or s gelu'(aux)
//          and, for the gradient of a bias, the sums of op(a) along the depth
// Traffic  a tile of R x C outputs reads (R + C) K values: at 128 x 128 one byte per 64 FLOP
// Work     2 M N K FLOP
// Mapping  a block owns a tile of c and walks over K in steps of 32; three stages of asynchronous copies keep two
//          steps in flight. Warps own 64 x 32 (or 32 x 32) of the tile in registers, fed by ldmatrix; transposed
//          operands are turned by ldmatrix itself, so that all four forms read memory along its rows. Shared rows are
//          64 or 2 x tile bytes; the 16-byte pieces of a row are permuted by an exclusive or with the row, so that the
//          eight rows of a matrix lie in different banks. When c has fewer tiles than a GPU has multiprocessors and K
//          is long (weight gradients), K is split over blocks, and a second launch adds the parts in order.
// Limits   rows of a and b must be multiples of 16 bytes, aligned; others take matmul_plain.cu
#include "cuda/kernels/matmul.h"

#include "cuda/kernels/matmul_epilogue.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kDepth = 32, kStages = 3;

/// A tile in shared memory: kRows rows of kWidth values in 16-byte pieces.
template <int kWidth>
__device__ __forceinline__ int piece_at(int row, int piece) {
  constexpr int kPieces = kWidth / 8;
  const int turn = kPieces >= 8 ? row & 7 : (row >> 1) & (kPieces - 1);
  return row * kWidth + ((piece ^ turn) * 8);
}

template <int kRows, int kCols>
struct Stage {
  bf16 a[kRows * kDepth], b[kCols * kDepth];
};
template <int kRows, int kCols>
struct Stages {
  Stage<kRows, kCols> stage[kStages];
};

/// Copies kHigh x kWidth values from (row, col) of an array with `rows` x `cols` elements; what lies outside becomes
/// zero.
template <int kThreads, int kHigh, int kWidth>
__device__ __forceinline__ void copy_tile(bf16* to, const bf16* from, std::int64_t row, std::int64_t col,
                                          std::int64_t rows, std::int64_t cols) {
  constexpr int kPieces = kWidth / 8, kAll = kHigh * kPieces;
  static_assert(kAll % kThreads == 0);
  EVERGRAD_UNROLL
  for (int i = 0; i < kAll / kThreads; ++i) {
    const int n = i * kThreads + int(threadIdx.x), r = n / kPieces, piece = n % kPieces;
    const bool inside = row + r < rows && col + piece * 8 < cols;
    cp_async_16(to + piece_at<kWidth>(r, piece), inside ? from + (row + r) * cols + col + piece * 8 : from, inside);
  }
}

template <int kRows, int kCols, int kWarpRows, int kWarpCols, bool kTransA, bool kTransB>
struct Product {
  static constexpr int kWarpsDown = kRows / kWarpRows, kWarpsAcross = kCols / kWarpCols;
  static constexpr int kThreads = kWarpsDown * kWarpsAcross * kWarp;
  static constexpr int kHigh = kWarpRows / 16, kWide = kWarpCols / 8;  // mma tiles of a warp
  // Stored shapes: a [rows, depth] or, transposed, [depth, rows]; b [depth, cols] or [cols, depth].
  static constexpr int kWidthA = kTransA ? kRows : kDepth, kWidthB = kTransB ? kDepth : kCols;

  static __device__ __forceinline__ void fetch(const MatmulParams& p, Stage<kRows, kCols>& s, std::int64_t row,
                                               std::int64_t col, std::int64_t k) {
    const bf16 *const a = static_cast<const bf16*>(p.a.data), *const b = static_cast<const bf16*>(p.b.data);
    if constexpr (kTransA)
      copy_tile<kThreads, kDepth, kRows>(s.a, a, k, row, p.depth, p.rows);
    else
      copy_tile<kThreads, kRows, kDepth>(s.a, a, row, k, p.rows, p.depth);
    if constexpr (kTransB)
      copy_tile<kThreads, kCols, kDepth>(s.b, b, col, k, p.cols, p.depth);
    else
      copy_tile<kThreads, kDepth, kCols>(s.b, b, k, col, p.depth, p.cols);
  }

  static __device__ __forceinline__ void load_a(const Stage<kRows, kCols>& s, int row, int k, int lane,
                                                std::uint32_t (&r)[4]) {
    if constexpr (kTransA)
      ldmatrix_x4_trans(r, s.a + piece_at<kWidthA>(k + lane / 16 * 8 + lane % 8, (row + lane / 8 % 2 * 8) / 8));
    else
      ldmatrix_x4(r, s.a + piece_at<kWidthA>(row + lane % 16, (k + lane / 16 * 8) / 8));
  }
  /// Two neighbouring fragments of b: columns col .. col + 15.
  static __device__ __forceinline__ void load_b(const Stage<kRows, kCols>& s, int col, int k, int lane,
                                                std::uint32_t (&r)[4]) {
    if constexpr (kTransB)
      ldmatrix_x4(r, s.b + piece_at<kWidthB>(col + lane / 16 * 8 + lane % 8, (k + lane / 8 % 2 * 8) / 8));
    else
      ldmatrix_x4_trans(r, s.b + piece_at<kWidthB>(k + lane % 16, (col + lane / 16 * 8) / 8));
  }

  /// `summed`: which of the warp's 16-row strips of a is also summed along the depth; none for a negative number.
  static __device__ __forceinline__ void multiply(const Stage<kRows, kCols>& s, int row, int col, int lane,
                                                  float (&d)[kHigh][kWide][4], int summed, float (&sums)[2]) {
    EVERGRAD_UNROLL
    for (int k = 0; k < kDepth; k += 16) {
      std::uint32_t a[kHigh][4];
      EVERGRAD_UNROLL
      for (int i = 0; i < kHigh; ++i) {
        load_a(s, row + 16 * i, k, lane, a[i]);
        if (i != summed) continue;
        EVERGRAD_UNROLL
        for (int e = 0; e < 4; ++e) {
          float x, y;
          unpack_bf16(a[i][e], x, y);
          sums[e % 2] += x + y;
        }
      }
      EVERGRAD_UNROLL
      for (int j = 0; j < kWide; j += 2) {
        std::uint32_t pair[4];
        load_b(s, col + 8 * j, k, lane, pair);
        const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
        EVERGRAD_UNROLL
        for (int i = 0; i < kHigh; ++i) {
          mma_16816(d[i][j], a[i], left);
          mma_16816(d[i][j + 1], a[i], right);
        }
      }
    }
  }

  /// The four lanes of a row add up what they saw of it.
  static __device__ __forceinline__ void store_row_sums(const MatmulParams& p, std::int64_t row, std::int64_t part,
                                                        int lane, float (&sums)[2]) {
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      float v = sums[half];
      v += __shfl_xor_sync(kFullMask, v, 1);
      v += __shfl_xor_sync(kFullMask, v, 2);
      const std::int64_t r = row + lane / 4 + 8 * half;
      if (lane % 4 == 0 && r < p.rows) p.row_sums[part * p.rows + r] = v;
    }
  }

  /// Sums on their way out: half the tile's rows at a time, so that a thread then has eight neighbours of one row and
  /// memory is read and written in whole pieces. The padding puts four rows of fragments into different banks.
  struct Staged {
    float v[kRows / 2][kCols + 8];
  };
  union Shared {
    Stages<kRows, kCols> stages;
    Staged staged;
  };

  static __device__ __forceinline__ void finish(const MatmulParams& p, Staged& s, std::int64_t row, std::int64_t col,
                                                int warp_row, int warp_col, int lane, float (&d)[kHigh][kWide][4]) {
    constexpr int kPacks = kCols / kPack, kRowsAtOnce = kThreads / kPacks, kHalf = kWarpRows / 2;
    const int c = int(threadIdx.x) % kPacks * kPack, first = int(threadIdx.x) / kPacks;
    const int count = int(min_of<std::int64_t>(kPack, p.cols - col - c));
    float sums[kPack] = {};
    EVERGRAD_UNROLL
    for (int half = 0; half < 2; ++half) {
      __syncthreads();  // nobody reads what lies there any more
      EVERGRAD_UNROLL
      for (int i = 0; i < kHigh / 2; ++i) {
        EVERGRAD_UNROLL
        for (int j = 0; j < kWide; ++j) {
          EVERGRAD_UNROLL
          for (int e = 0; e < 4; e += 2) {
            Vec<float, 2> pair;
            pair.v[0] = d[half * (kHigh / 2) + i][j][e], pair.v[1] = d[half * (kHigh / 2) + i][j][e + 1];
            store_vec(&s.v[warp_row / 2 + 16 * i + lane / 4 + e * 4][warp_col + 8 * j + lane % 4 * 2], pair);
          }
        }
      }
      __syncthreads();
      for (int r = first; r < kRows / 2 && count > 0; r += kRowsAtOnce) {
        const std::int64_t to = row + r / kHalf * kWarpRows + half * kHalf + r % kHalf;
        if (to >= p.rows) continue;
        float v[kPack];
        load_pack({&s.v[r][c], DType::f32}, 0, v);
        finish_pack(p, v, to, col + c, count, blockIdx.z);
        EVERGRAD_UNROLL
        for (int k = 0; k < kPack; ++k) sums[k] += v[k];
      }
    }
    if (!p.column_sums) return;
    __syncthreads();
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) s.v[first][c + k] = sums[k];
    __syncthreads();
    for (int column = int(threadIdx.x); column < kCols; column += kThreads) {
      if (col + column >= p.cols) continue;
      float sum = 0.0f;
      for (int r = 0; r < kRowsAtOnce; ++r) sum += s.v[r][column];
      p.column_sums[row / kRows * p.cols + col + column] = sum;
    }
  }
};

template <int kRows, int kCols, int kWarpRows, int kWarpCols, bool kTransA, bool kTransB>
__global__ void __launch_bounds__(kRows / kWarpRows * kCols / kWarpCols * kWarp, kRows == 128 ? 2 : 4)
    matmul_device(const MatmulParams p) {
  using P = Product<kRows, kCols, kWarpRows, kWarpCols, kTransA, kTransB>;
  typename P::Shared& shared = dynamic_shared<typename P::Shared>();
  Stages<kRows, kCols>& s = shared.stages;
  const int lane = int(threadIdx.x % kWarp), warp = int(threadIdx.x / kWarp);
  const int warp_row = warp / P::kWarpsAcross * kWarpRows, warp_col = warp % P::kWarpsAcross * kWarpCols;
  const std::int64_t tiles_across = (p.cols + kCols - 1) / kCols;
  const std::int64_t row = std::int64_t(blockIdx.x) / tiles_across * kRows,
                     col = std::int64_t(blockIdx.x) % tiles_across * kCols;
  const DepthRange depth = depth_of(p, kDepth);
  // Row sums of a: all tiles of a row see the same a, so each adds up every tiles_across-th step, and each of its warps
  // side by side one strip.
  static_assert(P::kHigh == P::kWarpsAcross, "a warp for each strip of 16 rows");
  const int strip = warp % P::kWarpsAcross;
  const std::int64_t mine = std::int64_t(blockIdx.x) % tiles_across;

  float d[P::kHigh][P::kWide][4] = {}, sums[2] = {};
  EVERGRAD_UNROLL
  for (int i = 0; i < kStages - 1; ++i) {
    if (depth.begin + i < depth.end) P::fetch(p, s.stage[i], row, col, (depth.begin + i) * kDepth);
    cp_async_commit();
  }
  for (std::int64_t k = depth.begin; k < depth.end; ++k) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // this step's tile has landed for all, and all have finished with the stage that is filled next
    const std::int64_t ahead = k + kStages - 1;
    if (ahead < depth.end) P::fetch(p, s.stage[(ahead - depth.begin) % kStages], row, col, ahead * kDepth);
    cp_async_commit();
    const int summed = p.row_sums && k % tiles_across == mine ? strip : -1;
    P::multiply(s.stage[(k - depth.begin) % kStages], warp_row, warp_col, lane, d, summed, sums);
  }
  cp_async_wait<0>();
  if (p.row_sums) P::store_row_sums(p, row + warp_row + 16 * strip, blockIdx.z * tiles_across + mine, lane, sums);
  P::finish(p, shared.staged, row, col, warp_row, warp_col, lane, d);
}

template <bool kTransA, bool kTransB>
MatmulKernel pick(bool large) {
  return large ? &matmul_device<128, 128, 64, 32, kTransA, kTransB> : &matmul_device<64, 64, 32, 32, kTransA, kTransB>;
}

}  // namespace

MatmulKernel matmul_tensor_core_kernel(bool large, bool transpose_a, bool transpose_b) {
  if (transpose_a) return transpose_b ? pick<true, true>(large) : pick<true, false>(large);
  return transpose_b ? pick<false, true>(large) : pick<false, false>(large);
}

}  // namespace eg::EVERGRAD_BACKEND
