// cuda/kernels/cross_entropy.cu - softmax cross-entropy with label smoothing (Szegedy et al. 2016, arXiv:1512.00567),
// loss and gradient together.
//
// Math     over the A allowed classes: log p_k = z_k - log sum e^z; t_k = (1 - eps) target_k + eps / A;
//          loss = -sum t_k log p_k; dz_k = (p_k - t_k) scale
// Traffic  logits three times (the second and third from the cache), dlogits once
// Work     two exponentials and about 12 FLOP a class: bound by memory
// Mapping  a warp per row
// Limits   any number of classes; no allowed class gives loss and gradient as the reference does
#include "cuda/kernels/cross_entropy.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

struct Largest {
  float value;
  int index;  // -1: no class is allowed
};

__device__ __forceinline__ bool allowed(const CrossEntropyParams& p, std::int64_t k) {
  return !p.class_mask || p.class_mask[k] != 0;
}

/// The first largest of a row among allowed classes, in all lanes. value(k) gives its elements.
template <class F>
__device__ __forceinline__ Largest largest_of(const CrossEntropyParams& p, int lane, const F& value) {
  Largest best = {0.0f, -1};
  for (std::int64_t k = lane; k < p.classes; k += kWarp) {
    if (!allowed(p, k)) continue;
    const float v = value(k);
    if (best.index < 0 || v > best.value) best = {v, int(k)};
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const float v = __shfl_xor_sync(kFullMask, best.value, offset);
    const int i = __shfl_xor_sync(kFullMask, best.index, offset);
    const bool better = i >= 0 && (best.index < 0 || v > best.value || (v == best.value && i < best.index));
    if (better) best = {v, i};
  }
  return best;
}

__device__ __forceinline__ void one_row(const CrossEntropyParams& p, std::int64_t row, int lane) {
  const std::int64_t first = row * p.classes;
  const Largest best = largest_of(p, lane, [&](std::int64_t k) { return load_at(p.logits, first + k); });
  const float top = best.index < 0 ? 0.0f : best.value;
  float sum = 0.0f, count = 0.0f;
  for (std::int64_t k = lane; k < p.classes; k += kWarp)
    if (allowed(p, k)) sum += expf(load_at(p.logits, first + k) - top), count += 1.0f;
  sum = warp_sum(sum), count = warp_sum(count);
  const float log_sum = logf(sum);
  const int label =
      p.soft ? largest_of(p, lane, [&](std::int64_t k) { return p.soft[first + k]; }).index : int(p.labels[row]);

  float loss = 0.0f;
  for (std::int64_t k = lane; k < p.classes; k += kWarp) {
    float d = 0.0f;
    if (allowed(p, k)) {
      const float log_p = (load_at(p.logits, first + k) - top) - log_sum;
      const float target = p.soft ? p.soft[first + k] : (k == label ? 1.0f : 0.0f);
      const float t = (1.0f - p.smoothing) * target + p.smoothing / count;
      if (t != 0.0f) loss -= t * log_p;  // 0 log 0 is 0
      d = (expf(log_p) - t) * p.scale;
    }
    if (p.dlogits.data) store_at(p.dlogits, first + k, d);
  }
  loss = warp_sum(loss);
  if (lane != 0) return;
  if (!p.soft && !allowed(p, label)) loss += INFINITY;
  if (p.loss) p.loss[row] = loss;
  if (p.correct) p.correct[row] = best.index == label ? 1 : 0;
}

__global__ void __launch_bounds__(kLossWarps* kWarp) cross_entropy_device(const CrossEntropyParams p) {
  const std::int64_t row = std::int64_t(blockIdx.x) * kLossWarps + threadIdx.x / kWarp;
  if (row < p.rows) one_row(p, row, int(threadIdx.x % kWarp));
}

}  // namespace

void (*cross_entropy_kernel())(CrossEntropyParams) { return &cross_entropy_device; }

}  // namespace eg::EVERGRAD_BACKEND
