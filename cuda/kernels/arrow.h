// cuda/kernels/arrow.h - parameters of arrow.cu and arrow_solve.cu.
#pragma once
#include "cuda/kernels/operand.cuh"
#include "engine/arrow_solve.h"
#include "engine/records.h"

namespace eg::EVERGRAD_BACKEND {

inline constexpr int kArrowThreads = 256, kObservePacks = 2;
inline constexpr std::int64_t kObserveChunk = kArrowThreads * kPack * kObservePacks;  // elements of one block
inline constexpr std::int64_t kArrowChunk = kArrowThreads * kPack;
inline constexpr int kMostSlots = kArrowMaxWindow + 1;

struct ObserveParams {
  Operand grad, ring, vector;
  double *gram, *dots;  // dots null: the closed form
  const ArrowState* state;
  double* partials;               // [blocks, 2 slots + 3]
  std::int64_t n, begin, column;  // of a ring's column: which n of its elements
  int slots, blocks;
  bool wide;
};
/// What a block solves.
struct SolveSystem {
  const double *grams, *dots;
  std::int64_t tensors, parameters;
  ArrowState* state;
};
inline constexpr int kSystemsPerLaunch = 64;
struct SolveParams {
  ArrowSolveInput shared;  // what all systems have alike
  double* memory;          // arrow_solve_bytes for each; null: in shared memory
  std::int64_t each;       // of them, in doubles
  SolveSystem system[kSystemsPerLaunch];
};

struct Target {
  Operand weight, grad, work, ring, m, v, momentum;
  std::int64_t n;
  float weight_decay;
  bool wide;
};
inline constexpr int kTargetsPerLaunch = 24;
struct TargetTable {
  Target target[kTargetsPerLaunch];
  std::int32_t first_chunk[kTargetsPerLaunch + 1];
  std::int32_t count;
};
struct BaseParams {
  const StepRecord* step;
  ArrowState* state;
  double* partials;
  std::int64_t first_partial, count;  // count: over all launches, for the second stage
  double beta1, beta2;
  float eps;
  int slot;
  TargetTable table;
};
struct UpdateParams {
  const StepRecord* step;
  const ArrowState* state;
  double beta1, beta2;
  float eps, mu;
  int slot, base_slot, window;
  ArrowGraft graft;
  bool precondition_momentum, norm_control;
  TargetTable table;
};
void (*observe_kernel())(ObserveParams);
void (*finish_observe_kernel())(ObserveParams);
void (*solve_kernel())(SolveParams);
void (*base_kernel())(BaseParams);
void (*finish_base_kernel())(BaseParams);
void (*update_kernel())(UpdateParams);

}  // namespace eg::EVERGRAD_BACKEND
