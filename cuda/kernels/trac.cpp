// cuda/kernels/trac.cpp - host entries of trac.cu.
#include "cuda/kernels/trac.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {

void trac_measure(const TracMeasure& a, Stream s) {
  TracParams p = {};
  p.grad = operand(a.grad), p.weight = operand(a.weight), p.anchor = operand(a.anchor), p.way = operand(a.way);
  p.state = a.state.as<double>(), p.step = a.step, p.n = a.weight.size();
  p.blocks = int(min_of<std::int64_t>(256, max_of<std::int64_t>(1, ceil_div<std::int64_t>(p.n, 256 * kPack))));
  p.partials = static_cast<double*>(scratch(s, std::size_t(p.blocks) * sizeof(double)).data);
  p.wide = wide_access({&a.grad, &a.weight, &a.anchor, &a.way});
  launch("trac_measure", trac_measure_kernel(), dim3(unsigned(p.blocks)), dim3(256), 0, s, p);
  launch("trac_measure tune", trac_tune_kernel(), dim3(1), dim3(32), 0, s, p);
}

void trac_apply(const TracApply& a, Stream s) {
  TracParams p = {};
  p.weight = operand(a.weight), p.anchor = operand(a.anchor), p.way = operand(a.way), p.before = operand(a.before);
  p.work = operand(a.work), p.state = a.state.as<double>(), p.step = const_cast<StepRecord*>(a.step);
  p.n = a.weight.size(), p.wide = wide_access({&a.weight, &a.anchor, &a.way, &a.before, &a.work});
  launch("trac_apply", trac_apply_kernel(), dim3(stream_blocks(p.n)), dim3(256), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
