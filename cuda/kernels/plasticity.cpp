// cuda/kernels/plasticity.cpp - host entries of plasticity.cu.
#include "cuda/kernels/plasticity.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/segments.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void weight_penalty(const WeightPenalty& a, Stream s) {
  for_each_table(a.segments, kUpdateChunk, [&](const WeightTable& table, std::int32_t n) {
    PenaltyParams p;
    p.grad = operand(a.grad), p.weight = operand(a.weight), p.anchor = operand(a.anchor), p.table = table;
    p.wide = wide_access({&a.grad, &a.weight, &a.anchor});
    launch("weight_penalty", penalty_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
  });
}

void weight_perturb(const WeightPerturb& a, Stream s) {
  for_each_table(a.segments, kUpdateChunk, [&](const WeightTable& table, std::int32_t n) {
    PerturbParams p;
    p.weight = operand(a.weight), p.anchor = operand(a.anchor), p.work = operand(a.work), p.step = a.step;
    p.table = table, p.stream = a.stream, p.noise_slot = a.noise_slot, p.even_if_skipped = a.even_if_skipped;
    p.wide = wide_access({&a.weight, &a.anchor, &a.work});
    launch("weight_perturb", perturb_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
  });
}

void weight_project(const WeightProject& a, Stream s) {
  for_each_table(a.segments, kNormChunk, [&](const WeightTable& table, std::int32_t n) {
    const std::size_t sums = std::size_t(n) * sizeof(double);
    ProjectParams p;
    p.weight = operand(a.weight), p.work = operand(a.work), p.step = a.step, p.table = table, p.every = a.every;
    p.partials = static_cast<double*>(scratch(s, sums + WeightTable::kMost * sizeof(float)).data);
    p.factors = reinterpret_cast<float*>(p.partials + n);
    p.wide = wide_access({&a.weight, &a.work});
    const dim3 chunks{unsigned(n)};
    launch("weight_project sums", project_sums_kernel(), chunks, dim3(kUpdateThreads), 0, s, p);
    launch("weight_project factors", project_factors_kernel(), dim3(1), dim3(kFactorThreads), 0, s, p);
    launch("weight_project", project_scale_kernel(), chunks, dim3(kUpdateThreads), 0, s, p);
  });
}

void weight_ascent(const WeightAscent& a, Stream s) {
  AscentParams p;
  p.weight = operand(a.weight), p.grad = operand(a.grad), p.to = operand(a.to), p.adaptive = a.adaptive;
  p.wide = wide_access({&a.weight, &a.grad, &a.to}), p.first_partial = 0, p.count = 0;
  for_each_table(a.segments, kNormChunk, [&](const WeightTable&, std::int32_t n) { p.count += n; });
  p.partials = static_cast<double*>(scratch(s, std::size_t(p.count + 1) * sizeof(double)).data);
  p.factor = p.partials + p.count;
  for_each_table(a.segments, kNormChunk, [&](const WeightTable& table, std::int32_t n) {
    p.table = table;
    launch("weight_ascent sums", ascent_sums_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
    p.first_partial += n;
  });
  launch("weight_ascent factor", ascent_factor_kernel(), dim3(1), dim3(kUpdateThreads), 0, s, p);
  for_each_table(a.segments, kUpdateChunk, [&](const WeightTable& table, std::int32_t n) {
    p.table = table;
    launch("weight_ascent", ascent_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
  });
}

void unit_utility(const UnitUtility& a, Stream s) {
  UtilityParams p;
  p.sum_abs = a.sum_abs.as<double>(), p.weight_out = operand(a.weight_out), p.utility = operand(a.utility);
  p.sum = a.sum.as<double>(), p.row_count = a.row_count.as<double>(), p.mean = operand(a.mean);
  p.steps = a.steps.as<std::int32_t>(), p.step = a.step, p.units = a.sum_abs.size();
  p.outputs = a.weight_out ? a.weight_out.rows() : 1, p.keep_every = a.keep_every, p.rows = a.rows;
  p.decay = float(a.decay), p.rest = float(1.0 - a.decay);
  launch("unit_utility", utility_kernel(), dim3(unsigned(ceil_div<std::int64_t>(p.units, kUnitColumns))),
         dim3(kUnitColumns, kUnitLanes), 0, s, p);
}

void unit_reset(const UnitReset& a, Stream s) {
  UnitResetParams p;
  p.array = operand(a.array), p.rows = operand(a.rows), p.units = a.units.as<std::int32_t>();
  p.fc1_weight = a.fc1_weight, p.fc1_bias = a.fc1_bias, p.fc2_weight = a.fc2_weight;
  p.inputs = a.inputs, p.hidden = a.hidden, p.outputs = a.outputs;
  launch("unit_reset", unit_reset_kernel(), dim3(unsigned(a.units.size())), dim3(256), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
