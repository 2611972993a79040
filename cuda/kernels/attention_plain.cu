// cuda/kernels/attention_plain.cu - attention without tensor cores: fp32, and head widths that have no tensor-core
// kernel; and the diagnosis outputs of both.
//
// Math     as attention_fwd.cu and attention_bwd.cu
// Traffic  k and v (or q and dO) once per query (key), from the caches
// Work     4 B H N^2 D FLOP forward; backward 14, because both of its kernels make the scores and dP again
// Mapping  a warp owns one query (or one key). For scores its lanes hold 32 keys, for sums of vectors they hold the
//          head's numbers; the weights of 32 keys pass between the two through shared memory.
// Limits   head width at most 256, any number of tokens
#include "cuda/kernels/attention.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

constexpr int kThreads = kAttentionWarps * kWarp, kParts = kMostPlainWidth / kWarp;

struct WarpMemory {
  float own[2][kMostPlainWidth];  // this warp's query and dO, or key and value
  float weight[2][kWarp];
};
struct BlockMemory {
  WarpMemory warp[kAttentionWarps];
};

struct Place {
  std::int64_t image, head, token, row;  // row: of lse, delta
  int lane;
  bool exists;
};
__device__ __forceinline__ Place place_of(const AttentionParams& p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kAttentionWarps + threadIdx.x / kWarp,
                     per_image = std::int64_t(p.heads) * p.tokens;
  const bool exists = row < p.images * per_image;
  return {row / per_image, row / p.tokens % p.heads, row % p.tokens, row, int(threadIdx.x % kWarp), exists};
}
__device__ __forceinline__ std::int64_t qkv_at(const AttentionParams& p, const Place& w, int part, std::int64_t token) {
  return (((w.image * p.tokens + token) * 3 + part) * p.heads + w.head) * p.width;
}
__device__ __forceinline__ std::int64_t out_at(const AttentionParams& p, const Place& w, std::int64_t token) {
  return ((w.image * p.tokens + token) * p.heads + w.head) * p.width;
}
__device__ __forceinline__ void load_own(const AttentionParams& p, const Operand& from, std::int64_t at, int lane,
                                         float* to) {
  for (int d = lane; d < p.width; d += kWarp) to[d] = load_at(from, at + d);
}
__device__ __forceinline__ float dot_own(const AttentionParams& p, const float* own, const Operand& other,
                                         std::int64_t at) {
  float sum = 0.0f;
  for (int d = 0; d < p.width; ++d) sum += own[d] * load_at(other, at + d);
  return sum;
}
/// sum[part] += sum over the 32 tokens from `first` of weight[j] times the vector of token j; lanes hold the vector's
/// numbers.
template <class At>
__device__ __forceinline__ void add_weighted(const AttentionParams& p, const float* weight, const Operand& from,
                                             int first, int lane, const At& at, float (&sum)[kParts]) {
  const int count = min_of(kWarp, p.tokens - first);
  EVERGRAD_UNROLL
  for (int part = 0; part < kParts; ++part) {
    const int d = part * kWarp + lane;
    if (d >= p.width) continue;
    for (int j = 0; j < count; ++j) sum[part] += weight[j] * load_at(from, at(first + j) + d);
  }
}
__device__ __forceinline__ void store_own(const AttentionParams& p, const Operand& to, std::int64_t at, int lane,
                                          const float (&sum)[kParts], float factor, bool accumulate) {
  EVERGRAD_UNROLL
  for (int part = 0; part < kParts; ++part) {
    const int d = part * kWarp + lane;
    if (d < p.width) store_at(to, at + d, (accumulate ? load_at(to, at + d) : 0.0f) + factor * sum[part]);
  }
}

// Here and below, blocks a multiprocessor that suffice: left to itself, ptxas takes 40 to 48 registers and spills.
__global__ void __launch_bounds__(kThreads, 8) attention_fwd_plain_device(const AttentionParams p) {
  const Place w = place_of(p);
  WarpMemory& memory = static_shared<BlockMemory>().warp[threadIdx.x / kWarp];
  if (!w.exists) return;
  load_own(p, p.qkv, qkv_at(p, w, 0, w.token), w.lane, memory.own[0]);
  __syncwarp();
  float largest = -INFINITY, sum = 0.0f, out[kParts] = {};
  for (int first = 0; first < p.tokens; first += kWarp) {
    const int key = first + w.lane;
    const float s = key < p.tokens ? p.scale * dot_own(p, memory.own[0], p.qkv, qkv_at(p, w, 1, key)) : -INFINITY;
    const float top = fmaxf(largest, warp_max(s)), shrink = expf(largest - top), weight = expf(s - top);
    sum = sum * shrink + warp_sum(weight), largest = top;
    memory.weight[0][w.lane] = weight;
    __syncwarp();
    EVERGRAD_UNROLL
    for (int part = 0; part < kParts; ++part) out[part] *= shrink;
    add_weighted(
        p, memory.weight[0], p.qkv, first, w.lane, [&](int j) { return qkv_at(p, w, 2, j); }, out);
    __syncwarp();
  }
  store_own(p, p.out, out_at(p, w, w.token), w.lane, out, 1.0f / sum, false);
  if (w.lane == 0) p.lse[w.row] = largest + logf(sum);
}

__global__ void __launch_bounds__(kThreads, 8) attention_bwd_queries_plain_device(const AttentionParams p) {
  const Place w = place_of(p);
  WarpMemory& memory = static_shared<BlockMemory>().warp[threadIdx.x / kWarp];
  if (!w.exists) return;
  load_own(p, p.qkv, qkv_at(p, w, 0, w.token), w.lane, memory.own[0]);
  load_own(p, p.dout, out_at(p, w, w.token), w.lane, memory.own[1]);
  __syncwarp();
  float part = 0.0f;
  for (int d = w.lane; d < p.width; d += kWarp) part += memory.own[1][d] * load_at(p.out, out_at(p, w, w.token) + d);
  const float delta = warp_sum(part), lse = p.lse[w.row];
  if (w.lane == 0) p.delta[w.row] = delta;
  float dq[kParts] = {};
  for (int first = 0; first < p.tokens; first += kWarp) {
    const int key = first + w.lane;
    float ds = 0.0f;
    if (key < p.tokens) {
      const float probability = expf(p.scale * dot_own(p, memory.own[0], p.qkv, qkv_at(p, w, 1, key)) - lse);
      ds = p.scale * probability * (dot_own(p, memory.own[1], p.qkv, qkv_at(p, w, 2, key)) - delta);
    }
    memory.weight[0][w.lane] = ds;
    __syncwarp();
    add_weighted(
        p, memory.weight[0], p.qkv, first, w.lane, [&](int j) { return qkv_at(p, w, 1, j); }, dq);
    __syncwarp();
  }
  store_own(p, p.dqkv, qkv_at(p, w, 0, w.token), w.lane, dq, 1.0f, p.accumulate);
}

__global__ void __launch_bounds__(kThreads, 6) attention_bwd_keys_plain_device(const AttentionParams p) {
  const Place w = place_of(p);
  WarpMemory& memory = static_shared<BlockMemory>().warp[threadIdx.x / kWarp];
  if (!w.exists) return;
  load_own(p, p.qkv, qkv_at(p, w, 1, w.token), w.lane, memory.own[0]);
  load_own(p, p.qkv, qkv_at(p, w, 2, w.token), w.lane, memory.own[1]);
  __syncwarp();
  const std::int64_t rows = w.row - w.token;  // of lse and delta, of this head's first query
  float dk[kParts] = {}, dv[kParts] = {};
  for (int first = 0; first < p.tokens; first += kWarp) {
    const int query = first + w.lane;
    float probability = 0.0f, ds = 0.0f;
    if (query < p.tokens) {
      probability = expf(p.scale * dot_own(p, memory.own[0], p.qkv, qkv_at(p, w, 0, query)) - p.lse[rows + query]);
      ds = p.scale * probability * (dot_own(p, memory.own[1], p.dout, out_at(p, w, query)) - p.delta[rows + query]);
    }
    memory.weight[0][w.lane] = ds, memory.weight[1][w.lane] = probability;
    __syncwarp();
    add_weighted(
        p, memory.weight[0], p.qkv, first, w.lane, [&](int j) { return qkv_at(p, w, 0, j); }, dk);
    add_weighted(
        p, memory.weight[1], p.dout, first, w.lane, [&](int j) { return out_at(p, w, j); }, dv);
    __syncwarp();
  }
  store_own(p, p.dqkv, qkv_at(p, w, 1, w.token), w.lane, dk, 1.0f, p.accumulate);
  store_own(p, p.dqkv, qkv_at(p, w, 2, w.token), w.lane, dv, 1.0f, p.accumulate);
}

__global__ void __launch_bounds__(kThreads) attention_probe_device(const AttentionParams p) {
  const Place w = place_of(p);
  WarpMemory& memory = static_shared<BlockMemory>().warp[threadIdx.x / kWarp];
  if (!w.exists) return;
  load_own(p, p.qkv, qkv_at(p, w, 0, w.token), w.lane, memory.own[0]);
  __syncwarp();
  const auto score = [&](int key) { return p.scale * dot_own(p, memory.own[0], p.qkv, qkv_at(p, w, 1, key)); };
  float top = -INFINITY, sum = 0.0f, weighted = 0.0f;
  for (int key = w.lane; key < p.tokens; key += kWarp) top = fmaxf(top, score(key));
  top = warp_max(top);
  for (int key = w.lane; key < p.tokens; key += kWarp) {
    const float below = top - score(key), weight = expf(-below);
    sum += weight, weighted += weight * below;
  }
  sum = warp_sum(sum), weighted = warp_sum(weighted);
  // -sum P log P without a difference of large numbers: log P = -below - log(sum).
  if (w.lane == 0 && p.entropy) p.entropy[w.row] = logf(sum) + weighted / sum;
  for (int key = w.lane; p.map && key < p.tokens; key += kWarp)
    p.map[w.row * p.tokens + key] = expf(score(key) - top) / sum;
}

}  // namespace

AttentionKernel attention_fwd_plain_kernel() { return &attention_fwd_plain_device; }
AttentionKernel attention_bwd_queries_plain_kernel() { return &attention_bwd_queries_plain_device; }
AttentionKernel attention_bwd_keys_plain_kernel() { return &attention_bwd_keys_plain_device; }
AttentionKernel attention_probe_kernel() { return &attention_probe_device; }

}  // namespace eg::EVERGRAD_BACKEND
