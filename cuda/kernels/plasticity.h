// cuda/kernels/plasticity.h - parameters of plasticity.cu.
#pragma once
#include "cuda/kernels/segments.cuh"

namespace eg::EVERGRAD_BACKEND {

using WeightTable = TableOf<WeightSegment>;
inline constexpr int kFactorThreads = ceil_div(WeightTable::kMost, kWarp) * kWarp;  // one for each segment

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
/// Three passes: sums of squares per chunk, one factor, the step uphill.
struct AscentParams {
  Operand weight, grad, to;
  double* partials;  // one per chunk of all tables
  double* factor;    // 1 / (norm + 1e-12), or NaN
  std::int64_t first_partial, count;
  WeightTable table;
  bool adaptive, wide;
};
inline constexpr int kUnitColumns = 32, kUnitLanes = 8;  // a block's units, and threads that share a unit's column
struct UtilityParams {
  double *sum_abs, *sum;
  const double* row_count;
  Operand weight_out, utility, mean;
  std::int32_t* steps;
  const StepRecord* step;
  std::int64_t units, outputs, keep_every;
  double rows;
  float decay, rest;
};
struct UnitResetParams {
  Operand array, rows;
  const std::int32_t* units;
  std::int64_t fc1_weight, fc1_bias, fc2_weight, inputs, hidden, outputs;
};
void (*penalty_kernel())(PenaltyParams);
void (*perturb_kernel())(PerturbParams);
void (*project_sums_kernel())(ProjectParams);
void (*project_factors_kernel())(ProjectParams);
void (*project_scale_kernel())(ProjectParams);
void (*ascent_sums_kernel())(AscentParams);
void (*ascent_factor_kernel())(AscentParams);
void (*ascent_kernel())(AscentParams);
void (*utility_kernel())(UtilityParams);
void (*unit_reset_kernel())(UnitResetParams);

}  // namespace eg::EVERGRAD_BACKEND
