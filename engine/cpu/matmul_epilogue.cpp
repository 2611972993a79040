// engine/cpu/matmul_epilogue.cpp - bias, GELU and its gradient, accumulation and rounding of finished tiles; and the
// last step of the bias gradients that products leave behind.
#include "engine/cpu/matmul.h"

#define EVERGRAD_KERNEL_BODY "engine/cpu/matmul_epilogue.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

EpilogueFn choose_epilogue(const Matmul& m) { return EVERGRAD_DISPATCH(epilogue_for, m); }

void finish_bias_grad(const Matmul& m, const float* partials, std::int64_t count, std::int64_t width) {
  parallel_for(width, 1024, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t j = begin; j < end; ++j) {
      float sum = 0.0f;
      for (std::int64_t i = 0; i < count; ++i) sum += partials[i * width + j];
      if (m.bias_grad.dtype == DType::f32) {
        float& to = static_cast<float*>(m.bias_grad.data)[j];
        to = m.accumulate_bias_grad ? to + sum : sum;
      } else {
        bf16& to = static_cast<bf16*>(m.bias_grad.data)[j];
        to = bf16(m.accumulate_bias_grad ? float(to) + sum : sum);
      }
    }
  });
}

}  // namespace eg::cpu
