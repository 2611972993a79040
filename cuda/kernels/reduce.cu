// cuda/kernels/reduce.cu - sums in a fixed order: over rows, over everything, and counters of hidden units.
//
// Math     column_sum out[c] = sum_r x[r,c]; mean, dot; counters of methods.md D.2
// Traffic  x once, plus one row of partial sums per chunk of 256 rows
// Mapping  column_sum: a block owns 32 columns of one chunk, 8 rows at a time; the second stage adds the chunks in order.
//          sum: 128 blocks at most, each over its own packs; one block adds their results
// Order    depends on the shape alone, so results repeat on every card and schedule
#include "cuda/kernels/reduce.h"

#include "cuda/kernels/gelu.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct ColumnTile {
  float v[kRowLanes][kColumns];
};

/// Sum over the kRowLanes values that a column's threads hold; valid in threads with y == 0.
__device__ __forceinline__ float sum_down(float v) {
  ColumnTile& tile = static_shared<ColumnTile>();
  tile.v[threadIdx.y][threadIdx.x] = v;
  __syncthreads();
  float total = 0.0f;
  if (threadIdx.y == 0) {
    EVERGRAD_UNROLL
    for (int lane = 0; lane < kRowLanes; ++lane) total += tile.v[lane][threadIdx.x];
  }
  return total;
}

__global__ void __launch_bounds__(kColumns* kRowLanes) column_sum_device(const ColumnSumParams p) {
  const std::int64_t c = std::int64_t(blockIdx.x) * kColumns + threadIdx.x;
  const std::int64_t chunks = gridDim.y, chunk = blockIdx.y;
  const std::int64_t begin = p.rows * chunk / chunks, end = p.rows * (chunk + 1) / chunks;
  float sum = 0.0f;
  if (c < p.columns)
    for (std::int64_t r = begin + threadIdx.y; r < end; r += kRowLanes) sum += load_at(p.x, p.offset + r * p.row_stride + c);
  sum = sum_down(sum);
  if (threadIdx.y != 0 || c >= p.columns) return;
  if (p.partials)
    p.partials[chunk * p.columns + c] = sum;
  else
    store_at(p.out, c, p.accumulate ? load_at(p.out, c) + sum : sum);
}

__global__ void __launch_bounds__(256) finish_columns_device(const FinishColumnsParams p) {
  const std::int64_t c = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= p.columns) return;
  float sum = 0.0f;
  for (std::int64_t k = 0; k < p.chunks; ++k) sum += p.partials[k * p.columns + c];
  store_at(p.out, c, p.accumulate ? load_at(p.out, c) + sum : sum);
}

__device__ __forceinline__ double exact_at(const Operand& o, std::int64_t i) {
  return o.type == DType::f64 ? static_cast<const double*>(o.data)[i] : double(load_at(o, i));
}

__global__ void __launch_bounds__(kSumThreads) sum_over_all_device(const SumParams p) {
  double sum = 0.0;
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (wide) {
      float a[kPack], b[kPack];
      load_pack(p.a, i, a);
      if (p.b.data) load_pack(p.b, i, b);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) sum += p.b.data ? double(a[k]) * double(b[k]) : double(a[k]);
    } else {
      for (int k = 0; k < count; ++k) sum += p.b.data ? exact_at(p.a, i + k) * exact_at(p.b, i + k) : exact_at(p.a, i + k);
    }
  });
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kSumThreads) finish_sum_over_all_device(const SumParams p) {
  const int t = int(threadIdx.x);
  const double sum = p.scale * block_sum<kSumThreads>(t < p.blocks ? p.partials[t] : 0.0);
  if (t != 0) return;
  if (p.out.type == DType::f64)
    static_cast<double*>(p.out.data)[0] = sum;
  else
    store_at(p.out, 0, float(sum));
}

struct UnitTile {
  double v[kRowLanes][kColumns];
};
__device__ __forceinline__ void add_counter(double* counter, std::int64_t unit, bool owned, double mine) {
  UnitTile& tile = static_shared<UnitTile>();
  __syncthreads();  // the counter before this one has been read
  tile.v[threadIdx.y][threadIdx.x] = mine;
  __syncthreads();
  if (threadIdx.y != 0 || !owned || !counter) return;
  double sum = counter[unit];
  for (int lane = 0; lane < kRowLanes; ++lane) sum += tile.v[lane][threadIdx.x];
  counter[unit] = sum;
}

template <bool kTanh>
__device__ __forceinline__ void count_units(const UnitStatisticsParams& p) {
  const std::int64_t unit = std::int64_t(blockIdx.x) * kColumns + threadIdx.x;
  const bool owned = unit < p.columns;
  double positive = 0.0, magnitude = 0.0, gradient = 0.0, sum_abs = 0.0;
  float largest = -INFINITY;
  for (std::int64_t r = threadIdx.y; owned && r < p.rows; r += kRowLanes) {
    const float z = load_at(p.z, r * p.columns + unit), y = gelu<kTanh>(z);
    positive += z > 0.0f ? 1.0 : 0.0;
    magnitude += fabsf(y) > p.tau ? 1.0 : 0.0;
    gradient += fabsf(gelu_grad<kTanh>(z)) > p.tau ? 1.0 : 0.0;
    sum_abs += double(fabsf(y));
    largest = fmaxf(largest, y);
  }
  add_counter(p.positive, unit, owned, positive);
  add_counter(p.alive_magnitude, unit, owned, magnitude);
  add_counter(p.alive_gradient, unit, owned, gradient);
  add_counter(p.sum_abs, unit, owned, sum_abs);
  ColumnTile& tile = static_shared<ColumnTile, 1>();
  tile.v[threadIdx.y][threadIdx.x] = largest;
  __syncthreads();
  if (threadIdx.y != 0 || !owned || !p.max_value) return;
  for (int lane = 0; lane < kRowLanes; ++lane) p.max_value[unit] = fmax(p.max_value[unit], double(tile.v[lane][threadIdx.x]));
}

__global__ void __launch_bounds__(kColumns* kRowLanes) unit_counters_device(const UnitStatisticsParams p) {
  if (p.tanh_form)
    count_units<true>(p);
  else
    count_units<false>(p);
}

}  // namespace

void (*column_sum_kernel())(ColumnSumParams) { return &column_sum_device; }
void (*finish_columns_kernel())(FinishColumnsParams) { return &finish_columns_device; }
void (*sum_kernel())(SumParams) { return &sum_over_all_device; }
void (*finish_sum_kernel())(SumParams) { return &finish_sum_over_all_device; }
void (*unit_statistics_kernel())(UnitStatisticsParams) { return &unit_counters_device; }

}  // namespace eg::EVERGRAD_BACKEND
