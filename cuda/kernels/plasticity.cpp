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
    p.partials = static_cast<double*>(scratch(s, sums + kSegmentsPerLaunch * sizeof(float)).data);
    p.factors = reinterpret_cast<float*>(p.partials + n);
    p.wide = wide_access({&a.weight, &a.work});
    const dim3 chunks{unsigned(n)};
    launch("weight_project sums", project_sums_kernel(), chunks, dim3(kUpdateThreads), 0, s, p);
    launch("weight_project factors", project_factors_kernel(), dim3(1), dim3(kSegmentsPerLaunch), 0, s, p);
    launch("weight_project", project_scale_kernel(), chunks, dim3(kUpdateThreads), 0, s, p);
  });
}

}  // namespace eg::EVERGRAD_BACKEND
