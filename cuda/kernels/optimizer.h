// cuda/kernels/optimizer.h - parameters of optimizer.cu.
#pragma once
#include "cuda/kernels/segments.cuh"

namespace eg::EVERGRAD_BACKEND {

struct NormParams {
  Operand grad;
  double* partials;  // one per chunk, over all launches of a call
  std::int64_t first_partial;
  SegmentTable table;
  bool wide;
};
struct FinishNormParams {
  const double* partials;
  std::int64_t count;
  StepRecord* step;
};
struct SgdParams {
  Operand weight, grad, momentum, work;
  const StepRecord* step;
  SegmentTable table;
  float mu, keep;  // keep = 1 - dampening
  bool nesterov, decoupled, clipped, wide;
};
struct AdamParams {
  Operand weight, grad, m, v, work;
  const StepRecord* step;
  SegmentTable table;
  const std::int32_t *row_steps, *column_steps;
  std::int64_t columns;
  double beta1, beta2;
  float eps;
  bool decoupled, wide;
};
struct EmaParams {
  Operand average, weight;
  const StepRecord* step;
  std::int64_t n;
  float decay, rest;
  bool wide;
};
struct StepFinishParams {
  StepRecord* step;
  std::uint32_t slots;
};
void (*norm_kernel())(NormParams);
void (*finish_norm_kernel())(FinishNormParams);
void (*sgd_kernel())(SgdParams);
void (*adam_kernel())(AdamParams);
void (*ema_kernel())(EmaParams);
void (*step_finish_kernel())(StepFinishParams);

}  // namespace eg::EVERGRAD_BACKEND
