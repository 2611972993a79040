// cuda/kernels/qk_norm.cu - layer norm of q and k over the head width, inside packed qkv (Dehghani et al. 2023,
// arXiv:2302.05442); v passes through.
//
// Math     as layer_norm.cu, without a residual: a row is one head's vector of a token, with gamma and beta for q and for k
// Shapes   qkv, out and their gradients [tokens, 3, heads, D]; gamma, beta [D]; mean, rstd [tokens, 2, heads] fp32
// Traffic  forward qkv and out once: 4 bytes an element in bf16; backward qkv (of q and k), dout, dqkv: 5.3 bytes
// Work     9 and 14 FLOP an element: bound by memory
// Mapping  `lanes` threads share a vector, 8 numbers each: 8 of them for D = 64, so that a warp has four vectors in
//          flight and sums in three steps. blockIdx.y is q, k or v: a thread of the backward pass keeps the sums of one
//          of them in registers, a block leaves one partial row of each, finish_sections adds these in order
// Limits   one type, 16-byte aligned, D a multiple of 8 up to 256; qk_norm_any.cu does the rest
#include "cuda/kernels/qk_norm.cuh"

#include "cuda/kernels/layer_norm.cuh"
#include "cuda/kernels/layer_norm.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// What this thread does of vector `index` of the tokens x heads vectors of one part.
struct Share {
  std::int64_t at, statistic;  // of its first number, and of the vector's mean and rstd
  bool inside;                 // there are numbers for this thread
};
__device__ __forceinline__ Share share_of(const QkNormParams& p, std::int64_t index, int part) {
  const int c = int(threadIdx.x % unsigned(p.lanes)) * kPack;
  const std::int64_t token = index / p.heads, head = index % p.heads;
  return {((token * 3 + part) * p.heads + head) * p.width + c, (token * 2 + part) * p.heads + head,
          index < p.tokens * p.heads && c < p.width};
}

/// Sum over the threads that share a vector; every lane of the warp takes part.
__device__ __forceinline__ float vector_sum(const QkNormParams& p, float v) {
  for (int offset = p.lanes / 2; offset > 0; offset /= 2) v += __shfl_xor_sync(kFullMask, v, offset);
  return v;
}

template <class T>
__global__ void __launch_bounds__(kQkThreads) qk_norm_fwd_device(const QkNormParams p) {
  const int part = int(blockIdx.y), c = int(threadIdx.x % unsigned(p.lanes)) * kPack;
  const std::int64_t thread = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const Share s = share_of(p, thread / p.lanes, part);
  Pack<T> raw = s.inside ? load_raw<T>(p.qkv, s.at) : Pack<T>{};
  float v[kPack];
  unpack(raw, v);
  if (part == 2) {
    if (s.inside) store_raw(p.out, s.at, raw);
    return;
  }
  float sum = 0.0f, square = 0.0f;
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) sum += v[k];
  const float mean = vector_sum(p, sum) / float(p.width);
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) square += s.inside ? (v[k] - mean) * (v[k] - mean) : 0.0f;
  const float rstd = 1.0f / sqrtf(vector_sum(p, square) / float(p.width) + p.eps);
  if (!s.inside) return;
  if (c == 0) p.mean[s.statistic] = mean, p.rstd[s.statistic] = rstd;
  float gamma[kPack], beta[kPack];
  unpack(load_raw<T>(chosen(part == 0, p.gamma_q, p.gamma_k), c), gamma);
  unpack(load_raw<T>(chosen(part == 0, p.beta_q, p.beta_k), c), beta);
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) v[k] = (v[k] - mean) * rstd * gamma[k] + beta[k];
  pack(v, raw);
  store_raw(p.out, s.at, raw);
}

struct QkSums {
  float gamma[kPack], beta[kPack];
};

template <class T>
__device__ __forceinline__ void store_gradient(const QkNormParams& p, const Share& s, float (&d)[kPack]) {
  if (!s.inside) return;
  if (p.accumulate) {
    float old[kPack];
    unpack(load_raw<T>(p.out, s.at), old);
    EVERGRAD_UNROLL
    for (int k = 0; k < kPack; ++k) d[k] += old[k];
  }
  Pack<T> raw;
  pack(d, raw);
  store_raw(p.out, s.at, raw);
}

template <class T>
__device__ __forceinline__ void gradient_of_vector(const QkNormParams& p, const Share& s, const float (&gamma)[kPack],
                                                   QkSums& sums) {
  float d[kPack] = {}, h[kPack] = {}, mean = 0.0f, rstd = 0.0f;
  if (s.inside) {
    const Pack<T> dy = load_raw<T>(p.dout, s.at), x = load_raw<T>(p.qkv, s.at);
    mean = p.mean[s.statistic], rstd = p.rstd[s.statistic];
    unpack(dy, d), unpack(x, h);
  }
  float sum_g = 0.0f, sum_gh = 0.0f;
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) {
    h[k] = (h[k] - mean) * rstd;  // 0 outside
    sums.gamma[k] += d[k] * h[k], sums.beta[k] += d[k];
    d[k] *= gamma[k];
    sum_g += d[k], sum_gh += d[k] * h[k];
  }
  const float mean_g = vector_sum(p, sum_g) / float(p.width), mean_gh = vector_sum(p, sum_gh) / float(p.width);
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) d[k] = rstd * (d[k] - mean_g - h[k] * mean_gh);
  store_gradient<T>(p, s, d);
}

struct QkTile {
  float v[2][kQkThreads][kPack];
};

template <class T>
__global__ void __launch_bounds__(kQkThreads) qk_norm_bwd_device(const QkNormParams p) {
  const int part = int(blockIdx.y), c = int(threadIdx.x % unsigned(p.lanes)) * kPack;
  const std::int64_t at_once = kQkThreads / p.lanes, vectors = p.tokens * p.heads;
  float gamma[kPack] = {};
  if (part < 2 && c < p.width) unpack(load_raw<T>(chosen(part == 0, p.gamma_q, p.gamma_k), c), gamma);
  QkSums sums = {};
  // The whole block goes round together: lanes without a vector take part in the sums of their warp.
  for (std::int64_t first = std::int64_t(blockIdx.x) * at_once; first < vectors;
       first += std::int64_t(gridDim.x) * at_once) {
    const Share s = share_of(p, first + threadIdx.x / unsigned(p.lanes), part);
    if (part < 2) {
      gradient_of_vector<T>(p, s, gamma, sums);
    } else {
      float d[kPack] = {};
      if (s.inside) unpack(load_raw<T>(p.dout, s.at), d);
      store_gradient<T>(p, s, d);
    }
  }
  if (part == 2 || !p.partials) return;
  QkTile& tile = static_shared<QkTile>();
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) {
    tile.v[0][threadIdx.x][k] = sums.gamma[k];
    tile.v[1][threadIdx.x][k] = sums.beta[k];
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < 2 * p.width; i += kQkThreads) {
    const int which = i / p.width, column = i % p.width;
    float total = 0.0f;
    for (int t = column / kPack; t < kQkThreads; t += p.lanes) total += tile.v[which][t][column % kPack];
    p.partials[((std::int64_t(blockIdx.x) * 2 + part) * 2 + which) * p.width + column] = total;
  }
}

}  // namespace

void (*qk_norm_fwd_kernel(DType type))(QkNormParams) {
  return type == DType::bf16 ? &qk_norm_fwd_device<bf16> : &qk_norm_fwd_device<float>;
}
void (*qk_norm_bwd_kernel(DType type))(QkNormParams) {
  return type == DType::bf16 ? &qk_norm_bwd_device<bf16> : &qk_norm_bwd_device<float>;
}

}  // namespace eg::EVERGRAD_BACKEND
