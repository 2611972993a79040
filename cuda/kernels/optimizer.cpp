// cuda/kernels/optimizer.cpp - host entries of optimizer.cu.
#include "cuda/kernels/optimizer.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/segments.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void global_norm(const GlobalNorm& a, Stream s) {
  std::int64_t chunks = 0;
  for_each_table(a.segments, kNormChunk, [&](const SegmentTable&, std::int32_t n) { chunks += n; });
  double* const partials =
      static_cast<double*>(scratch(s, std::size_t(max_of<std::int64_t>(chunks, 1)) * sizeof(double)).data);
  std::int64_t first = 0;
  for_each_table(a.segments, kNormChunk, [&](const SegmentTable& table, std::int32_t n) {
    NormParams p;
    p.grad = operand(a.grad), p.partials = partials, p.first_partial = first, p.table = table,
    p.wide = wide_access({&a.grad});
    launch("global_norm", norm_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
    first += n;
  });
  FinishNormParams f;
  f.partials = partials, f.count = chunks, f.step = a.step;
  if (!a.grad) f.partials = &a.step->grad_norm_sq, f.count = 1;
  launch("global_norm finish", finish_norm_kernel(), dim3(1), dim3(kUpdateThreads), 0, s, f);
}

void step_finish(const StepFinish& a, Stream s) {
  StepFinishParams p;
  p.step = a.step, p.slots = a.slots;
  launch("step_finish", step_finish_kernel(), dim3(1), dim3(32), 0, s, p);
}

void sgd_update(const SgdUpdate& a, Stream s) {
  for_each_table(a.segments, kUpdateChunk, [&](const SegmentTable& table, std::int32_t n) {
    SgdParams p;
    p.weight = operand(a.weight), p.grad = operand(a.grad), p.momentum = operand(a.momentum), p.work = operand(a.work);
    p.step = a.step, p.table = table, p.mu = float(a.mu), p.keep = float(1.0 - a.dampening);
    p.nesterov = a.nesterov, p.decoupled = a.decoupled, p.clipped = a.clipped,
    p.wide = wide_access({&a.weight, &a.grad, &a.momentum, &a.work});
    launch("sgd_update", sgd_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
  });
}

void adam_update(const AdamUpdate& a, Stream s) {
  for_each_table(a.segments, kUpdateChunk, [&](const SegmentTable& table, std::int32_t n) {
    AdamParams p;
    p.weight = operand(a.weight), p.grad = operand(a.grad), p.m = operand(a.m), p.v = operand(a.v),
    p.work = operand(a.work);
    p.step = a.step, p.table = table, p.row_steps = a.row_steps.as<std::int32_t>(),
    p.column_steps = a.column_steps.as<std::int32_t>();
    p.columns = max_of<std::int64_t>(a.columns, 1), p.beta1 = a.beta1, p.beta2 = a.beta2, p.eps = float(a.eps);
    p.decoupled = a.decoupled, p.wide = wide_access({&a.weight, &a.grad, &a.m, &a.v, &a.work});
    launch("adam_update", adam_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
  });
}

void ema_update(const EmaUpdate& a, Stream s) {
  EmaParams p;
  p.average = operand(a.average), p.weight = operand(a.weight), p.step = a.step, p.n = a.weight.size();
  p.decay = float(a.decay), p.rest = float(1.0 - a.decay), p.wide = wide_access({&a.average, &a.weight});
  launch("ema_update", ema_kernel(), dim3(stream_blocks(p.n)), dim3(stream_threads(p.n)), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
