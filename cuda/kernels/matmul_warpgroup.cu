// cuda/kernels/matmul_warpgroup.cu - bf16 matrix products on Hopper's warpgroup instructions (wgmma).
//
// Math     as matmul.cu: s = op(a) op(b) in fp32, the same epilogues, the same sums for the gradient of a bias
// Traffic  a tile of 128 x 256 outputs reads 384 K values: one byte per 85 FLOP. Operands go from shared memory to the
//          tensor cores without passing through registers: 20 KB a step of 16 for 256 cycles of arithmetic
// Work     2 M N K FLOP
// Mapping  a block of two warpgroups owns 128 x 256 (or 128 x 128) outputs, each warpgroup 64 rows of them in registers,
//          and walks over K in steps of 64, four products of 16 each. All threads copy; kLead steps are on their way. With
//          256 columns one block fills a multiprocessor, so the products of one step stay in flight over the barrier of
//          the next; with 128 two blocks fit, and one multiplies while the other waits or writes.
// Limits   compute capability 9.0; rows of a and b multiples of 16 bytes, aligned, as in matmul.cu
#include "cuda/kernels/matmul.h"

#include "cuda/kernels/matmul_epilogue.cuh"
#include "cuda/wgmma.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kRows = 128, kDepth = kPanelWidth, kThreads = 2 * kWarpgroup, kWarps = kThreads / kWarp;
constexpr int kWarpRows = kRows / kWarps;

template <int kCols, bool kTransA, bool kTransB>
struct Product {
  static constexpr bool kWide = kCols == 256;
  static constexpr int kStages = kWide ? 4 : 3;
  static constexpr int kInFlight = kWide ? 1 : 0;  // groups of products that a barrier does not wait for
  static constexpr int kLead = kStages - 1 - kInFlight;
  static constexpr int kPanel = kDepth * kPanelWidth, kPanelBytes = kPanel * int(sizeof(bf16));  // MN-major

  struct alignas(kPanelAlign) Stage {
    bf16 a[kRows * kDepth], b[kCols * kDepth];
  };
  /// Sums on their way out, so that a thread has eight neighbours of one row. The padding puts the four rows that half a
  /// warp stores at once into different banks.
  struct Staged {
    float v[kRows][kCols + 8];
  };
  struct Shared {
    union {
      Stage stage[kStages];
      Staged staged;
    };
    float row_parts[2][kRows];
  };

  /// Copies kHigh x 64 values from (row, col) of an array with `rows` x `cols` elements into a panel; what lies outside
  /// becomes zero.
  template <int kHigh>
  static __device__ __forceinline__ void copy_panel(bf16* to, const bf16* from, std::int64_t row, std::int64_t col,
                                                    std::int64_t rows, std::int64_t cols) {
    constexpr int kPieces = kPanelWidth / 8;
    EVERGRAD_UNROLL
    for (int i = 0; i < kHigh * kPieces / kThreads; ++i) {
      const int n = i * kThreads + reread_thread_x(), r = n / kPieces, c = n % kPieces * 8;
      const bool inside = row + r < rows && col + c < cols;
      cp_async_16(to + panel_at(r, c), inside ? from + (row + r) * cols + col + c : from, inside);
    }
  }
  /// kSize rows of a or columns of b from `first` on, 64 deep. Transposed: stored as [depth, all].
  template <int kSize, bool kTransposed>
  static __device__ __forceinline__ void copy_operand(bf16* to, const Operand& from, std::int64_t first,
                                                      std::int64_t all, std::int64_t k, std::int64_t depth) {
    const bf16* const x = static_cast<const bf16*>(from.data);
    if constexpr (kTransposed) {
      EVERGRAD_UNROLL
      for (int panel = 0; panel < kSize / kPanelWidth; ++panel)
        copy_panel<kDepth>(to + panel * kPanel, x, k, first + panel * kPanelWidth, depth, all);
    } else {
      copy_panel<kSize>(to, x, first, k, all, depth);
    }
  }
  static __device__ __forceinline__ void fetch(const MatmulParams& p, Stage& s, std::int64_t row, std::int64_t col,
                                               std::int64_t k) {
    copy_operand<kRows, kTransA>(s.a, p.a, row, p.rows, k, p.depth);
    copy_operand<kCols, kTransB>(s.b, p.b, col, p.cols, k, p.depth);
  }

  static __device__ __forceinline__ void clear(float (&d)[kCols / 2]) {
    EVERGRAD_UNROLL
    for (float& v : d) v = 0.0f;
  }
  /// `first`: d holds nothing yet. (Were it cleared before the loop, ptxas would run one product after another: C7515.)
  static __device__ __forceinline__ void multiply(const Stage& s, int warpgroup, bool first, float (&d)[kCols / 2]) {
    // A step of 16 along the depth: 16 values of a row, or 16 rows.
    constexpr int kStepA = kProductDepth * (kTransA ? kPanelWidth : 1), kBytesA = kTransA ? kPanelBytes : 16;
    constexpr int kStepB = kProductDepth * (kTransB ? kPanelWidth : 1), kBytesB = kTransB ? kPanelBytes : 16;
    warpgroup_fence();
    EVERGRAD_UNROLL
    for (int i = 0; i < kDepth / kProductDepth; ++i)
      // 64 rows of 64, or one panel: the same distance.
      warpgroup_mma<kCols, kTransA, kTransB>(d, panel_descriptor(s.a + warpgroup * kPanel + i * kStepA, kBytesA),
                                             panel_descriptor(s.b + i * kStepB, kBytesB), i > 0 || !first);
    warpgroup_commit();
  }

  /// Half of a row of this step's a for each thread.
  static __device__ __forceinline__ float row_part(const Stage& s) {
    const int row = int(threadIdx.x) % kRows, first = int(threadIdx.x) / kRows * (kDepth / 2);
    float sum = 0.0f;
    EVERGRAD_UNROLL
    for (int k = 0; k < kDepth / 2; ++k)
      sum += float(kTransA ? s.a[row / kPanelWidth * kPanel + panel_at(first + k, row % kPanelWidth)]
                           : s.a[panel_at(row, first + k)]);
    return sum;
  }
  static __device__ __forceinline__ void store_row_sums(const MatmulParams& p, Shared& s, std::int64_t row,
                                                        std::int64_t part, float sum) {
    const int mine = int(threadIdx.x) % kRows;
    s.row_parts[int(threadIdx.x) / kRows][mine] = sum;
    __syncthreads();
    if (int(threadIdx.x) < kRows && row + mine < p.rows)
      p.row_sums[part * p.rows + row + mine] = s.row_parts[0][mine] + s.row_parts[1][mine];
  }

  /// Each warp takes its 16 rows through shared memory and on.
  static __device__ __forceinline__ void finish(const MatmulParams& p, Staged& s, std::int64_t row, std::int64_t col,
                                                const float (&d)[kCols / 2]) {
    constexpr int kPacks = kCols / kPack, kRowsAtOnce = kWarp / kPacks;
    const int lane = int(threadIdx.x) % kWarp, first = int(threadIdx.x) / kWarp * kWarpRows;
    EVERGRAD_UNROLL
    for (int i = 0; i < kCols / 2; i += 2) {
      Vec<float, 2> pair;
      pair.v[0] = d[i], pair.v[1] = d[i + 1];
      store_vec(&s.v[first + lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2], pair);
    }
    __syncwarp();
    const int c = lane % kPacks * kPack, count = int(min_of<std::int64_t>(kPack, p.cols - col - c));
    float sums[kPack] = {};
    for (int r = lane / kPacks; r < kWarpRows && count > 0; r += kRowsAtOnce) {
      if (row + first + r >= p.rows) break;
      float v[kPack];
      load_pack({&s.v[first + r][c], DType::f32}, 0, v);
      finish_pack(p, v, row + first + r, col + c, count, blockIdx.z);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) sums[k] += v[k];
    }
    if (!p.column_sums) return;
    constexpr int kParts = kWarps * kRowsAtOnce;
    __syncthreads();
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) s.v[int(threadIdx.x) / kPacks][c + k] = sums[k];
    __syncthreads();
    const int column = int(threadIdx.x);
    if (column >= kCols || col + column >= p.cols) return;
    float sum = 0.0f;
    for (int part = 0; part < kParts; ++part) sum += s.v[part][column];
    p.column_sums[row / kRows * p.cols + col + column] = sum;
  }
};

template <int kCols, bool kTransA, bool kTransB>
__global__ void __launch_bounds__(kThreads, kCols == 256 ? 1 : 2) matmul_warpgroup_device(const MatmulParams p) {
  using P = Product<kCols, kTransA, kTransB>;
  typename P::Shared& s = dynamic_shared<typename P::Shared>();
  const int warpgroup = int(threadIdx.x) / kWarpgroup;
  const std::int64_t tiles_across = (p.cols + kCols - 1) / kCols, mine = std::int64_t(blockIdx.x) % tiles_across;
  const std::int64_t row = std::int64_t(blockIdx.x) / tiles_across * kRows, col = mine * kCols;
  const DepthRange depth = depth_of(p, kDepth);

  float d[kCols / 2], row_sum = 0.0f;
  EVERGRAD_UNROLL
  for (int i = 0; i < P::kLead; ++i) {
    if (depth.begin + i < depth.end) P::fetch(p, s.stage[i], row, col, (depth.begin + i) * kDepth);
    cp_async_commit();
  }
  for (std::int64_t k = depth.begin; k < depth.end; ++k) {
    cp_async_wait<P::kLead - 1>();
    fence_for_products();
    warpgroup_wait<P::kInFlight>();
    __syncthreads();  // this step's tile has landed for all, and all have finished with the stage that is filled next
    const typename P::Stage& now = s.stage[(k - depth.begin) % P::kStages];
    P::multiply(now, warpgroup, k == depth.begin, d);
    const std::int64_t ahead = k + P::kLead;
    if (ahead < depth.end) P::fetch(p, s.stage[(ahead - depth.begin) % P::kStages], row, col, ahead * kDepth);
    cp_async_commit();
    // All tiles of a row see the same a, so each adds up every tiles_across-th step.
    if (p.row_sums && k % tiles_across == mine) row_sum += P::row_part(now);
  }
  warpgroup_wait<0>();
  cp_async_wait<0>();
  __syncthreads();
  if (depth.begin == depth.end) P::clear(d);
  if (p.row_sums) P::store_row_sums(p, s, row, blockIdx.z * tiles_across + mine, row_sum);
  P::finish(p, s.staged, row, col, d);
}

template <bool kTransA, bool kTransB>
MatmulKernel pick(bool wide) {
  return wide ? &matmul_warpgroup_device<256, kTransA, kTransB> : &matmul_warpgroup_device<128, kTransA, kTransB>;
}

static_assert(sizeof(Product<256, false, false>::Shared) == kWarpgroupWideTile.shared_bytes);
static_assert(sizeof(Product<128, false, false>::Shared) == kWarpgroupTile.shared_bytes);

}  // namespace

// a b with b as [cols, depth] is K-major for both: transposing b is what the instruction has as its plain form.
MatmulKernel matmul_warpgroup_kernel(bool wide, bool transpose_a, bool transpose_b) {
  if (transpose_a) return transpose_b ? pick<true, false>(wide) : pick<true, true>(wide);
  return transpose_b ? pick<false, false>(wide) : pick<false, true>(wide);
}

}  // namespace eg::EVERGRAD_BACKEND
