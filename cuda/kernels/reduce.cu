// cuda/kernels/reduce.cu - sums in a fixed order: over rows, over everything, and counters of hidden units.
//
// Math     column_sum out[c] = sum_r x[r,c]; mean, dot; counters of methods.md D.2
// Shapes   x [R,C], out [C]; mean and dot of any shape, out [1]; z [R,F], counters [F] fp64
// Traffic  x once, plus one row of partial sums per chunk (64 rows and more)
// Work     one addition an element (two for dot, 30 for the counters): bound by memory
// Mapping  column_sum: a block owns 256 columns (32 where packs cannot be read) of one chunk, 8 rows at a time, 4 of
//          them on their way; the second stage adds the chunks. sum: 128 blocks at most, each over its own packs; one
//          block adds their results. Counters: a block owns 32 units and all rows (they are taken in probes, not in
//          every step)
// Order    depends on the shape alone, so results repeat on every card and schedule
// Limits   none
#include "cuda/kernels/reduce.cuh"

#include "cuda/kernels/gelu.cuh"

namespace eg::EVERGRAD_BACKEND {
namespace {

__device__ __forceinline__ void store_column_sum(const ColumnSumParams& p, std::int64_t c, float sum) {
  if (p.partials)
    p.partials[std::int64_t(blockIdx.y) * p.columns + c] = sum;
  else
    store_at(p.out, c, p.accumulate ? load_at(p.out, c) + sum : sum);
}

template <class T>
__global__ void __launch_bounds__(kColumns* kRowLanes) column_sum_wide_device(const ColumnSumParams p) {
  sum_chunk<kPack>(
      p.rows, p.columns,
      [&](std::int64_t r, std::int64_t c, float(&sums)[kPack]) {
        float v[kPack];
        unpack(load_raw<T>(p.x, p.offset + r * p.row_stride + c), v);
        EVERGRAD_UNROLL
        for (int k = 0; k < kPack; ++k) sums[k] += v[k];
      },
      [&](std::int64_t c, float sum) { store_column_sum(p, c, sum); });
}

__global__ void __launch_bounds__(kColumns* kRowLanes) column_sum_device(const ColumnSumParams p) {
  sum_chunk<1>(
      p.rows, p.columns,
      [&](std::int64_t r, std::int64_t c, float(&sums)[1]) {
        sums[0] += load_at(p.x, p.offset + r * p.row_stride + c);
      },
      [&](std::int64_t c, float sum) { store_column_sum(p, c, sum); });
}

__device__ __forceinline__ void store_in(const Operand& out, bool accumulate, std::int64_t c, float sum) {
  if (out.data) store_at(out, c, accumulate ? load_at(out, c) + sum : sum);
}
/// Into the output of this block's section. Spelled out: an index would move the parameters to memory of the thread.
__device__ __forceinline__ void store_finished(const FinishParams& p, std::int64_t c, float sum) {
  if (blockIdx.y == 0) store_in(p.out[0], p.accumulate, c, sum);
  if (blockIdx.y == 1) store_in(p.out[1], p.accumulate, c, sum);
  if (blockIdx.y == 2) store_in(p.out[2], p.accumulate, c, sum);
  if (blockIdx.y == 3) store_in(p.out[3], p.accumulate, c, sum);
}

__global__ void __launch_bounds__(256) finish_columns_device(const FinishParams p) {
  const std::int64_t c = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= p.columns) return;
  float sum = 0.0f;
  for (std::int64_t k = 0; k < p.chunks; ++k) sum += p.partials[(k * p.sections + blockIdx.y) * p.columns + c];
  store_finished(p, c, sum);
}

struct FinishTile {
  float v[kFinishLanes][kColumns];
};

__global__ void __launch_bounds__(kColumns* kFinishLanes) finish_chunks_device(const FinishParams p) {
  const std::int64_t c = std::int64_t(blockIdx.x) * kColumns + threadIdx.x;
  const int lanes = int(blockDim.y);
  float sum = 0.0f;
  if (c < p.columns)
    for (std::int64_t k = threadIdx.y; k < p.chunks; k += lanes)
      sum += p.partials[(k * p.sections + blockIdx.y) * p.columns + c];
  FinishTile& tile = static_shared<FinishTile>();
  tile.v[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= p.columns) return;
  float total = 0.0f;
  for (int lane = 0; lane < lanes; ++lane) total += tile.v[lane][threadIdx.x];
  store_finished(p, c, total);
}

__device__ __forceinline__ double exact_at(const Operand& o, std::int64_t i) {
  return o.type == DType::f64 ? static_cast<const double*>(o.data)[i] : double(load_at(o, i));
}

// Four blocks a multiprocessor suffice; for more, ptxas would spill.
__global__ void __launch_bounds__(kSumThreads, 4) sum_over_all_device(const SumParams p) {
  double sum = 0.0;
  for_each_pack(p.n, p.wide, [&](std::int64_t i, int count, bool wide) {
    if (wide) {
      float a[kPack], b[kPack] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
      load_pack(p.a, i, a);
      if (p.b.data) load_pack(p.b, i, b);
      EVERGRAD_UNROLL
      for (int k = 0; k < kPack; ++k) sum += double(a[k]) * double(b[k]);
    } else {
      for (int k = 0; k < count; ++k) sum += exact_at(p.a, i + k) * (p.b.data ? exact_at(p.b, i + k) : 1.0);
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
struct FloatTile {
  float v[kRowLanes][kColumns];
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
  double positive = 0.0, magnitude = 0.0, gradient = 0.0, sum_abs = 0.0, sum = 0.0;
  float largest = -INFINITY;
  for (std::int64_t r = threadIdx.y; owned && r < p.rows; r += kRowLanes) {
    const float z = load_at(p.z, r * p.columns + unit), y = gelu<kTanh>(z);
    positive += z > 0.0f ? 1.0 : 0.0;
    magnitude += fabsf(y) > p.tau ? 1.0 : 0.0;
    gradient += fabsf(gelu_grad<kTanh>(z)) > p.tau ? 1.0 : 0.0;
    sum_abs += double(fabsf(y));
    sum += double(y);
    largest = fmaxf(largest, y);
  }
  add_counter(p.positive, unit, owned, positive);
  add_counter(p.alive_magnitude, unit, owned, magnitude);
  add_counter(p.alive_gradient, unit, owned, gradient);
  add_counter(p.sum_abs, unit, owned, sum_abs);
  add_counter(p.sum, unit, owned, sum);
  if (p.row_count && blockIdx.x == 0 && threadIdx.x == 0 && threadIdx.y == 0) *p.row_count += double(p.rows);
  FloatTile& tile = static_shared<FloatTile>();
  tile.v[threadIdx.y][threadIdx.x] = largest;
  __syncthreads();
  if (threadIdx.y != 0 || !owned || !p.max_value) return;
  for (int lane = 0; lane < kRowLanes; ++lane)
    p.max_value[unit] = fmax(p.max_value[unit], double(tile.v[lane][threadIdx.x]));
}

__global__ void __launch_bounds__(kColumns* kRowLanes) unit_counters_device(const UnitStatisticsParams p) {
  if (p.tanh_form)
    count_units<true>(p);
  else
    count_units<false>(p);
}

}  // namespace

void (*column_sum_kernel(bool wide, DType type))(ColumnSumParams) {
  if (!wide) return &column_sum_device;
  return type == DType::bf16 ? &column_sum_wide_device<bf16> : &column_sum_wide_device<float>;
}
void (*finish_kernel(bool many_chunks))(FinishParams) {
  return many_chunks ? &finish_chunks_device : &finish_columns_device;
}
void (*sum_kernel())(SumParams) { return &sum_over_all_device; }
void (*finish_sum_kernel())(SumParams) { return &finish_sum_over_all_device; }
void (*unit_statistics_kernel())(UnitStatisticsParams) { return &unit_counters_device; }

}  // namespace eg::EVERGRAD_BACKEND
