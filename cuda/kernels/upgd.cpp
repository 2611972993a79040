// cuda/kernels/upgd.cpp - host entry of upgd.cu.
#include "cuda/kernels/upgd.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/segments.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void upgd_update(const UpgdUpdate& a, Stream s) {
  UpgdParams p = {};
  p.weight = operand(a.weight), p.grad = operand(a.grad), p.utility = operand(a.utility), p.work = operand(a.work);
  p.step = a.step, p.beta = a.beta, p.noise = float(a.noise), p.stream = a.stream, p.protects = a.protects;
  p.wide = wide_access({&a.weight, &a.grad, &a.utility, &a.work});
  for_each_table(a.segments, kNormChunk, [&](const SegmentTable&, std::int32_t n) { p.count += n * kUpgdWarps; });
  if (p.count == 0) return;
  p.partials = static_cast<float*>(scratch(s, std::size_t(p.count + 1) * sizeof(float)).data);
  p.largest = p.partials + p.count;
  for_each_table(a.segments, kNormChunk, [&](const SegmentTable& table, std::int32_t n) {
    p.table = table;
    launch("upgd_update utility", upgd_utility_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
    p.first_partial += n * kUpgdWarps;
  });
  launch("upgd_update largest", upgd_largest_kernel(), dim3(1), dim3(kUpdateThreads), 0, s, p);
  for_each_table(a.segments, kUpdateChunk, [&](const SegmentTable& table, std::int32_t n) {
    p.table = table;
    launch("upgd_update", upgd_weight_kernel(), dim3(unsigned(n)), dim3(kUpdateThreads), 0, s, p);
  });
}

}  // namespace eg::EVERGRAD_BACKEND
