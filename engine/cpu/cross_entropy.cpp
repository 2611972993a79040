// engine/cpu/cross_entropy.cpp - softmax cross-entropy: loss, gradient and whether the row was right, in one visit of
// each row. With m = max z and L = log sum e^(z - m), over allowed classes only:
//   loss = (1 - eps) sum_k t_k (L - (z_k - m)) + eps (L - mean(z - m)),  dz = (e^(z - m) / e^L - target) scale.
// Distances from the maximum keep the loss of a confident, right row accurate.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/cross_entropy.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void cross_entropy(const CrossEntropy& a, Stream) {
  const std::int64_t classes = a.logits.cols();
  std::vector<float> allowed;
  std::int64_t count = classes;
  if (a.class_mask) {
    const std::uint8_t* const mask = a.class_mask.as<std::uint8_t>();
    for (std::int64_t k = 0; k < classes; ++k) allowed.push_back(mask[k] ? 1.0f : 0.0f);
    count = std::count(allowed.begin(), allowed.end(), 1.0f);
  }
  EVERGRAD_DISPATCH(cross_entropy, a, allowed.empty() ? nullptr : allowed.data(), count);
}

}  // namespace eg::cpu
