// cuda/ladders/matmul.cu - five rungs to the matrix product of kernels/matmul.cu, whose two tiles are the sixth and the seventh.
//
// Each output is K multiplications and additions. What decides is how often an operand is fetched for them: a tile of
// R x C outputs needs (R + C) K values, so doubling its sides halves the traffic.
#include "cuda/ladders/ladders.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

// Rung 1. One thread, one output. Every multiplication fetches two numbers: 4 bytes for 2 FLOP.
__global__ void __launch_bounds__(256) by_thread_device(const LadderProduct p) {
  const int col = int(blockIdx.x * blockDim.x + threadIdx.x), row = int(blockIdx.y * blockDim.y + threadIdx.y);
  if (row >= p.rows || col >= p.cols) return;
  float sum = 0.0f;
  for (int k = 0; k < p.depth; ++k)
    sum += float(p.a[std::int64_t(row) * p.depth + k]) * float(p.b[std::int64_t(k) * p.cols + col]);
  p.c[std::int64_t(row) * p.cols + col] = to_bf16(sum);
}

// Rung 2. A block fetches a tile of a and one of b into shared memory, and every number serves 32 threads.
struct Tiles {
  float a[kLadderTile][kLadderTile], b[kLadderTile][kLadderTile];
};
__global__ void __launch_bounds__(kLadderTile* kLadderTile) by_tile_device(const LadderProduct p) {
  Tiles& s = static_shared<Tiles>();
  const int x = int(threadIdx.x), y = int(threadIdx.y);
  const int col = int(blockIdx.x) * kLadderTile + x, row = int(blockIdx.y) * kLadderTile + y;
  float sum = 0.0f;
  for (int k = 0; k < p.depth; k += kLadderTile) {
    s.a[y][x] = row < p.rows && k + x < p.depth ? float(p.a[std::int64_t(row) * p.depth + k + x]) : 0.0f;
    s.b[y][x] = k + y < p.depth && col < p.cols ? float(p.b[std::int64_t(k + y) * p.cols + col]) : 0.0f;
    __syncthreads();
    for (int i = 0; i < kLadderTile; ++i) sum += s.a[y][i] * s.b[i][x];
    __syncthreads();  // nobody overwrites what another still reads
  }
  if (row < p.rows && col < p.cols) p.c[std::int64_t(row) * p.cols + col] = to_bf16(sum);
}

/// Both tiles of one step of 32 along the depth, in packs of eight; what lies outside becomes zero.
template <class Tile, int kThreads>
__device__ __forceinline__ void fetch_tiles(const LadderProduct& p, Tile& s, int row, int col, int k) {
  for (int n = int(threadIdx.x); n < kLadderWide * kLadderTile / 8; n += kThreads) {
    const int ar = n / 4, ac = n % 4 * 8, br = n / 8, bc = n % 8 * 8;
    Vec<bf16, 8> zero;
    for (int i = 0; i < 8; ++i) zero.v[i] = to_bf16(0.0f);
    const bool a_inside = row + ar < p.rows && k + ac < p.depth, b_inside = k + br < p.depth && col + bc < p.cols;
    s.put_a(ar, ac, a_inside ? load_vec<Vec<bf16, 8>>(p.a + std::int64_t(row + ar) * p.depth + k + ac) : zero);
    s.put_b(br, bc, b_inside ? load_vec<Vec<bf16, 8>>(p.b + std::int64_t(k + br) * p.cols + col + bc) : zero);
  }
}

// Rung 3. A thread owns 4 x 4 outputs in registers: eight numbers from shared memory feed sixteen multiplications, where
// rung 2 read two for one. The tile grows to 64 x 64, which halves what is asked of memory again.
struct WideTiles {
  float a[kLadderTile][kLadderWide + 4], b[kLadderTile][kLadderWide + 4];  // a turned, so that both are read along rows
  __device__ __forceinline__ void put_a(int r, int c, const Vec<bf16, 8>& v) {
    for (int i = 0; i < 8; ++i) a[c + i][r] = float(v.v[i]);
  }
  __device__ __forceinline__ void put_b(int r, int c, const Vec<bf16, 8>& v) {
    for (int i = 0; i < 8; ++i) b[r][c + i] = float(v.v[i]);
  }
};
__global__ void __launch_bounds__(256) by_register_device(const LadderProduct p) {
  WideTiles& s = static_shared<WideTiles>();
  const int x = int(threadIdx.x) % 16 * 4, y = int(threadIdx.x) / 16 * 4;
  const int col = int(blockIdx.x) * kLadderWide, row = int(blockIdx.y) * kLadderWide;
  float sum[4][4] = {};
  for (int k = 0; k < p.depth; k += kLadderTile) {
    fetch_tiles<WideTiles, 256>(p, s, row, col, k);
    __syncthreads();
    for (int i = 0; i < kLadderTile; ++i) {
      const auto a = load_vec<Vec<float, 4>>(&s.a[i][y]), b = load_vec<Vec<float, 4>>(&s.b[i][x]);
      EVERGRAD_UNROLL
      for (int r = 0; r < 4; ++r) {
        EVERGRAD_UNROLL
        for (int c = 0; c < 4; ++c) sum[r][c] += a.v[r] * b.v[c];
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c)
      if (row + y + r < p.rows && col + x + c < p.cols)
        p.c[std::int64_t(row + y + r) * p.cols + col + x + c] = to_bf16(sum[r][c]);
}

// Rungs 4 and 5. Four warps own 32 x 32 outputs each and multiply on tensor cores: one instruction is 16 x 8 x 16
// products, about sixteen times the rate of rung 3's. The sums are fp32.
template <int kPad>
struct HalfTiles {
  alignas(16) bf16 a[kLadderWide][kLadderTile + kPad], b[kLadderTile][kLadderWide + kPad];
  __device__ __forceinline__ void put_a(int r, int c, const Vec<bf16, 8>& v) { store_vec(&a[r][c], v); }
  __device__ __forceinline__ void put_b(int r, int c, const Vec<bf16, 8>& v) { store_vec(&b[r][c], v); }
};
__device__ __forceinline__ std::uint32_t two(const bf16& low, const bf16& high) {
  return std::uint32_t(low.bits) | std::uint32_t(high.bits) << 16;
}

// Rung 4 gathers each fragment number by number, as the layout of the instruction asks (PTX ISA, mma.m16n8k16).
struct Gather {
  static constexpr int kPad = 0;
  static __device__ __forceinline__ void a(const HalfTiles<0>& s, int row, int k, int lane, std::uint32_t (&r)[4]) {
    const int g = lane / 4, t = lane % 4 * 2;
    EVERGRAD_UNROLL
    for (int i = 0; i < 4; ++i) {
      const bf16* const from = &s.a[row + g + i % 2 * 8][k + t + i / 2 * 8];
      r[i] = two(from[0], from[1]);
    }
  }
  static __device__ __forceinline__ void b(const HalfTiles<0>& s, int k, int col, int lane, std::uint32_t (&r)[4]) {
    const int g = lane / 4, t = lane % 4 * 2;
    EVERGRAD_UNROLL
    for (int i = 0; i < 4; ++i) {
      const int at = k + t + i % 2 * 8, to = col + g + i / 2 * 8;
      r[i] = two(s.b[at][to], s.b[at + 1][to]);
    }
  }
};
// Rung 5 lets one instruction fetch and arrange four 8 x 8 matrices for the whole warp; the rows are padded by 16 bytes,
// so that the eight rows of a matrix lie in different banks.
struct Ldmatrix {
  static constexpr int kPad = 8;
  static __device__ __forceinline__ void a(const HalfTiles<8>& s, int row, int k, int lane, std::uint32_t (&r)[4]) {
    ldmatrix_x4(r, &s.a[row + lane % 16][k + lane / 16 * 8]);
  }
  static __device__ __forceinline__ void b(const HalfTiles<8>& s, int k, int col, int lane, std::uint32_t (&r)[4]) {
    ldmatrix_x4_trans(r, &s.b[k + lane % 16][col + lane / 16 * 8]);
  }
};

template <class Load>
__global__ void __launch_bounds__(128) by_tensor_core_device(const LadderProduct p) {
  using Tile = HalfTiles<Load::kPad>;
  Tile& s = static_shared<Tile>();
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  const int col = int(blockIdx.x) * kLadderWide, row = int(blockIdx.y) * kLadderWide;
  const int warp_row = warp / 2 * 32, warp_col = warp % 2 * 32;
  float d[2][4][4] = {};
  for (int k = 0; k < p.depth; k += kLadderTile) {
    fetch_tiles<Tile, 128>(p, s, row, col, k);
    __syncthreads();
    EVERGRAD_UNROLL
    for (int step = 0; step < kLadderTile; step += 16) {
      std::uint32_t a[2][4];
      EVERGRAD_UNROLL
      for (int i = 0; i < 2; ++i) Load::a(s, warp_row + 16 * i, step, lane, a[i]);
      EVERGRAD_UNROLL
      for (int j = 0; j < 4; j += 2) {
        std::uint32_t pair[4];
        Load::b(s, step, warp_col + 8 * j, lane, pair);
        const std::uint32_t left[2] = {pair[0], pair[1]}, right[2] = {pair[2], pair[3]};
        EVERGRAD_UNROLL
        for (int i = 0; i < 2; ++i) {
          mma_16816(d[i][j], a[i], left);
          mma_16816(d[i][j + 1], a[i], right);
        }
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 4; ++j)
      for (int e = 0; e < 4; ++e) {
        const int r = row + warp_row + 16 * i + lane / 4 + e / 2 * 8, c = col + warp_col + 8 * j + lane % 4 * 2 + e % 2;
        if (r < p.rows && c < p.cols) p.c[std::int64_t(r) * p.cols + c] = to_bf16(d[i][j][e]);
      }
}

}  // namespace

void (*product_by_thread())(LadderProduct) { return &by_thread_device; }
void (*product_by_tile())(LadderProduct) { return &by_tile_device; }
void (*product_by_register())(LadderProduct) { return &by_register_device; }
void (*product_by_mma())(LadderProduct) { return &by_tensor_core_device<Gather>; }
void (*product_by_ldmatrix())(LadderProduct) { return &by_tensor_core_device<Ldmatrix>; }

}  // namespace eg::EVERGRAD_BACKEND
