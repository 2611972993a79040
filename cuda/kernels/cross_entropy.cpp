// cuda/kernels/cross_entropy.cpp - host entry of cross_entropy.cu.
#include "cuda/kernels/cross_entropy.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"

namespace eg::EVERGRAD_BACKEND {

void cross_entropy(const CrossEntropy& a, Stream s) {
  CrossEntropyParams p;
  p.logits = operand(a.logits), p.dlogits = operand(a.dlogits);
  p.labels = a.labels.as<std::int32_t>(), p.soft = a.soft.as<float>(), p.class_mask = a.class_mask.as<std::uint8_t>();
  p.loss = a.loss.as<float>(), p.correct = a.correct.as<std::int32_t>();
  p.rows = a.logits.rows(), p.classes = a.logits.cols();
  p.smoothing = float(a.smoothing), p.scale = float(a.scale);
  launch("cross_entropy", cross_entropy_kernel(), dim3(unsigned((p.rows + kLossWarps - 1) / kLossWarps)),
         dim3(kLossWarps * kWarp), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
