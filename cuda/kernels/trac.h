// cuda/kernels/trac.h - parameters of trac.cu.
#pragma once
#include "cuda/kernels/operand.cuh"
#include "engine/records.h"

namespace eg::EVERGRAD_BACKEND {

struct TracParams {
  Operand grad, weight, anchor, way, before, work;
  double* state;
  double* partials;  // one per block of the measuring launch
  StepRecord* step;
  std::int64_t n;
  int blocks;
  bool wide;
};
void (*trac_measure_kernel())(TracParams);
void (*trac_tune_kernel())(TracParams);
void (*trac_apply_kernel())(TracParams);

}  // namespace eg::EVERGRAD_BACKEND
