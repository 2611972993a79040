// cuda/kernels/plasticity.h - parameters of plasticity.cu.
#pragma once
#include "cuda/kernels/segments.cuh"

namespace eg::EVERGRAD_BACKEND {

using WeightTable = TableOf<WeightSegment>;

struct PenaltyParams {
  Operand grad, weight, anchor;
  WeightTable table;
  bool wide;
};
struct PerturbParams {
  Operand weight, anchor, work;
  const StepRecord* step;
  WeightTable table;
  std::uint32_t stream;
  int noise_slot;
  bool even_if_skipped, wide;
};
/// Three launches: sums of squares per chunk, a factor per segment, the scaling.
struct ProjectParams {
  Operand weight, work;
  const StepRecord* step;
  double* partials;  // one per chunk
  float* factors;    // one per segment of the table
  std::int64_t every;
  WeightTable table;
  bool wide;
};
void (*penalty_kernel())(PenaltyParams);
void (*perturb_kernel())(PerturbParams);
void (*project_sums_kernel())(ProjectParams);
void (*project_factors_kernel())(ProjectParams);
void (*project_scale_kernel())(ProjectParams);

}  // namespace eg::EVERGRAD_BACKEND
