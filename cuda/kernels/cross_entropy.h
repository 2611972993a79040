// cuda/kernels/cross_entropy.h - parameters of cross_entropy.cu.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

struct CrossEntropyParams {
  Operand logits, dlogits;
  const std::int32_t* labels;
  const float* soft;
  const std::uint8_t* class_mask;
  float* loss;
  std::int32_t* correct;
  std::int64_t rows, classes;
  float smoothing, scale;
};
inline constexpr int kLossWarps = 4;  // rows of one block
void (*cross_entropy_kernel())(CrossEntropyParams);

}  // namespace eg::EVERGRAD_BACKEND
