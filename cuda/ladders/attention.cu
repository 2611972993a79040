// cuda/ladders/attention.cu - four rungs to the attention of kernels/attention_fwd.cu, which is the fifth.
//
// out_i = sum_j softmax_j(scale q_i k_j) v_j for every head of every image: 4 N^2 D FLOP a head, and N^2 scores that
// nobody wants to keep.
#include "cuda/ladders/ladders.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// Number d of token t's vector (part 0: q, 1: k, 2: v) of a head.
__device__ __forceinline__ const bf16* vector_of(const LadderAttention& p, int head_of_all, int t, int part) {
  const int image = head_of_all / p.heads, head = head_of_all % p.heads;
  return p.qkv + (((std::int64_t(image) * p.tokens + t) * 3 + part) * p.heads + head) * p.width;
}
__device__ __forceinline__ bf16* result_of(const LadderAttention& p, int head_of_all, int t) {
  const int image = head_of_all / p.heads, head = head_of_all % p.heads;
  return p.out + ((std::int64_t(image) * p.tokens + t) * p.heads + head) * p.width;
}

// Rung 1. Three passes as the formula says them, with all N^2 scores of every head in memory between them: written once,
// read three times. At 197 tokens that is more traffic than everything else together.
__global__ void __launch_bounds__(256) scores_device(const LadderAttention p) {
  const std::int64_t n = std::int64_t(p.images) * p.heads * p.tokens * p.tokens;
  const std::int64_t at = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= n) return;
  const int j = int(at % p.tokens), i = int(at / p.tokens % p.tokens), head = int(at / p.tokens / p.tokens);
  const bf16 *const q = vector_of(p, head, i, 0), *const k = vector_of(p, head, j, 1);
  float sum = 0.0f;
  for (int d = 0; d < p.width; ++d) sum += float(q[d]) * float(k[d]);
  p.scores[at] = p.scale * sum;
}
__global__ void __launch_bounds__(256) softmax_device(const LadderAttention p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= std::int64_t(p.images) * p.heads * p.tokens) return;
  float* const s = p.scores + row * p.tokens;
  float largest = s[0], sum = 0.0f;
  for (int j = 1; j < p.tokens; ++j) largest = fmaxf(largest, s[j]);
  for (int j = 0; j < p.tokens; ++j) sum += exp_fast(s[j] - largest);
  for (int j = 0; j < p.tokens; ++j) s[j] = exp_fast(s[j] - largest) / sum;
  p.lse[row] = largest + logf(sum);
}
__global__ void __launch_bounds__(256) mix_device(const LadderAttention p) {
  const std::int64_t at = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= std::int64_t(p.images) * p.heads * p.tokens * p.width) return;
  const int d = int(at % p.width), i = int(at / p.width % p.tokens), head = int(at / p.width / p.tokens);
  const float* const s = p.scores + (std::int64_t(head) * p.tokens + i) * p.tokens;
  float sum = 0.0f;
  for (int j = 0; j < p.tokens; ++j) sum += s[j] * float(vector_of(p, head, j, 2)[d]);
  result_of(p, head, i)[d] = to_bf16(sum);
}

/// A query's state in the online softmax (Milakov & Gimelshein 2018, arXiv:1805.02867): when a larger score comes, what was
/// summed so far is scaled down to it, so one pass over the keys is enough and no score is kept.
struct Online {
  float largest = -INFINITY, sum = 0.0f;
  float out[kLadderWidth] = {};
  __device__ __forceinline__ void take(float score, const bf16* v, int width) {
    const float top = fmaxf(largest, score), shrink = exp_fast(largest - top), weight = exp_fast(score - top);
    largest = top, sum = sum * shrink + weight;
    for (int d = 0; d < width; ++d) out[d] = out[d] * shrink + weight * float(v[d]);
  }
};
__device__ __forceinline__ void store(const LadderAttention& p, const Online& state, int head, int i) {
  for (int d = 0; d < p.width; ++d) result_of(p, head, i)[d] = to_bf16(state.out[d] / state.sum);
  p.lse[std::int64_t(head) * p.tokens + i] = state.largest + logf(state.sum);
}

// Rung 2. A thread owns a query and goes once over all keys: the scores never exist in memory. Every thread still fetches
// all keys and values by itself.
__global__ void __launch_bounds__(64) online_device(const LadderAttention p) {
  const int i = int(blockIdx.y) * 64 + int(threadIdx.x), head = int(blockIdx.x);
  if (i >= p.tokens) return;
  Online state;
  const bf16* const q = vector_of(p, head, i, 0);
  for (int j = 0; j < p.tokens; ++j) {
    const bf16* const k = vector_of(p, head, j, 1);
    float sum = 0.0f;
    for (int d = 0; d < p.width; ++d) sum += float(q[d]) * float(k[d]);
    state.take(p.scale * sum, vector_of(p, head, j, 2), p.width);
  }
  store(p, state, head, i);
}

// Rung 3. The block fetches 32 keys and values at a time into shared memory, where its 64 queries share them.
struct Chunk {
  alignas(16) bf16 keys[32][kLadderWidth], values[32][kLadderWidth];
};
__global__ void __launch_bounds__(64) shared_device(const LadderAttention p) {
  Chunk& s = static_shared<Chunk>();
  const int i = int(blockIdx.y) * 64 + int(threadIdx.x), head = int(blockIdx.x), packs = p.width / 8;
  Online state;
  for (int first = 0; first < p.tokens; first += 32) {
    const int count = min_of(32, p.tokens - first);
    for (int n = int(threadIdx.x); n < count * packs; n += 64) {
      const int t = n / packs, d = n % packs * 8;
      store_vec(&s.keys[t][d], load_vec<Vec<bf16, 8>>(vector_of(p, head, first + t, 1) + d));
      store_vec(&s.values[t][d], load_vec<Vec<bf16, 8>>(vector_of(p, head, first + t, 2) + d));
    }
    __syncthreads();
    if (i < p.tokens) {
      const bf16* const q = vector_of(p, head, i, 0);
      for (int j = 0; j < count; ++j) {
        float sum = 0.0f;
        for (int d = 0; d < p.width; ++d) sum += float(q[d]) * float(s.keys[j][d]);
        state.take(p.scale * sum, s.values[j], p.width);
      }
    }
    __syncthreads();
  }
  if (i < p.tokens) store(p, state, head, i);
}

/// Two numbers in one register, as tensor cores take them.
__device__ __forceinline__ std::uint32_t pair_of(bf16 low, bf16 high) {
  return std::uint32_t(low.bits) | std::uint32_t(high.bits) << 16;
}

// Rung 4. A warp owns 16 queries, and both products are instructions of 16 x 8 x 16 numbers; each lane gathers its operands
// one by one. What the first product leaves in a lane's registers, scores of 16 keys, is after the softmax what the second
// takes from them: the weights go nowhere in between. (Three blocks a multiprocessor: told of none, nvcc spills to fit four.)
__global__ void __launch_bounds__(128, 3) tensor_cores_device(const LadderAttention p) {
  constexpr int kSteps = kLadderWidth / 16;
  Chunk& s = static_shared<Chunk>();
  const int lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4, head = int(blockIdx.x), packs = p.width / 8;
  const int mine = int(blockIdx.y) * 64 + int(threadIdx.x) / kWarp * 16 + g;  // and 8 further on: this lane's queries
  std::uint32_t q[kSteps][4] = {};
  EVERGRAD_UNROLL
  for (int k = 0; k < kSteps; ++k) {
    EVERGRAD_UNROLL
    for (int r = 0; r < 4; ++r) {
      const int i = mine + 8 * (r % 2), d = 16 * k + 2 * t + 8 * (r / 2);
      if (i >= p.tokens || d >= p.width) continue;
      const bf16* const from = vector_of(p, head, i, 0) + d;
      q[k][r] = pair_of(from[0], from[1]);
    }
  }
  float out[2 * kSteps][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};
  for (int first = 0; first < p.tokens; first += 32) {
    const int count = min_of(32, p.tokens - first);
    Vec<bf16, 8> zero;
    for (int i = 0; i < 8; ++i) zero.v[i] = to_bf16(0.0f);
    for (int n = int(threadIdx.x); n < 32 * packs; n += 128) {
      const int row = n / packs, d = n % packs * 8;
      const bool there = row < count;
      store_vec(&s.keys[row][d], there ? load_vec<Vec<bf16, 8>>(vector_of(p, head, first + row, 1) + d) : zero);
      store_vec(&s.values[row][d], there ? load_vec<Vec<bf16, 8>>(vector_of(p, head, first + row, 2) + d) : zero);
    }
    __syncthreads();
    for (int key = 0; key < count; key += 16) {
      float score[2][4] = {};
      EVERGRAD_UNROLL
      for (int k = 0; k < kSteps; ++k) {
        if (16 * k >= p.width) continue;
        EVERGRAD_UNROLL
        for (int n = 0; n < 2; ++n) {
          const bf16* const from = s.keys[key + 8 * n + g] + 16 * k + 2 * t;
          const std::uint32_t b[2] = {pair_of(from[0], from[1]), pair_of(from[8], from[9])};
          mma_16816(score[n], q[k], b);
        }
      }
      EVERGRAD_UNROLL
      for (int r = 0; r < 2; ++r) {  // the lane's two queries; four lanes share the keys of each
        float top = largest[r];
        EVERGRAD_UNROLL
        for (int c = 0; c < 4; ++c) {
          float& x = score[c / 2][2 * r + c % 2];
          x = first + key + 8 * (c / 2) + 2 * t + c % 2 < p.tokens ? p.scale * x : -INFINITY;
          top = fmaxf(top, x);
        }
        top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 1));
        top = fmaxf(top, __shfl_xor_sync(kFullMask, top, 2));
        const float shrink = exp_fast(largest[r] - top);
        largest[r] = top, sum[r] *= shrink;
        EVERGRAD_UNROLL
        for (int c = 0; c < 4; ++c) {
          float& x = score[c / 2][2 * r + c % 2];
          x = exp_fast(x - top), sum[r] += x;
        }
        EVERGRAD_UNROLL
        for (int d = 0; d < 2 * kSteps; ++d) out[d][2 * r] *= shrink, out[d][2 * r + 1] *= shrink;
      }
      const std::uint32_t weights[4] = {pack_bf16(score[0][0], score[0][1]), pack_bf16(score[0][2], score[0][3]),
                                        pack_bf16(score[1][0], score[1][1]), pack_bf16(score[1][2], score[1][3])};
      EVERGRAD_UNROLL
      for (int d = 0; d < 2 * kSteps; ++d) {
        if (8 * d >= p.width) continue;
        const int column = 8 * d + g, row = key + 2 * t;
        const std::uint32_t b[2] = {pair_of(s.values[row][column], s.values[row + 1][column]),
                                    pair_of(s.values[row + 8][column], s.values[row + 9][column])};
        mma_16816(out[d], weights, b);
      }
    }
    __syncthreads();
  }
  EVERGRAD_UNROLL
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(kFullMask, sum[r], 1);
    sum[r] += __shfl_xor_sync(kFullMask, sum[r], 2);
    const int i = mine + 8 * r;
    if (i >= p.tokens) continue;
    EVERGRAD_UNROLL
    for (int d = 0; d < 2 * kSteps; ++d) {
      if (8 * d >= p.width) continue;
      bf16* const to = result_of(p, head, i) + 8 * d + 2 * t;
      to[0] = to_bf16(out[d][2 * r] / sum[r]), to[1] = to_bf16(out[d][2 * r + 1] / sum[r]);
    }
    if (t == 0) p.lse[std::int64_t(head) * p.tokens + i] = largest[r] + logf(sum[r]);
  }
}

}  // namespace

void (*attention_scores())(LadderAttention) { return &scores_device; }
void (*attention_softmax())(LadderAttention) { return &softmax_device; }
void (*attention_mix())(LadderAttention) { return &mix_device; }
void (*attention_online())(LadderAttention) { return &online_device; }
void (*attention_shared())(LadderAttention) { return &shared_device; }
void (*attention_tensor_cores())(LadderAttention) { return &tensor_cores_device; }

}  // namespace eg::EVERGRAD_BACKEND
