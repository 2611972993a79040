// cuda/kernels/arrow.cpp - host entries of arrow.cu and arrow_solve.cu.
#include "cuda/kernels/arrow.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// Calls f(table, chunks) for groups of targets.
template <class F>
void for_each_table(std::span<const ArrowTarget> targets, int slots, const F& f) {
  TargetTable t;
  t.count = 0, t.first_chunk[0] = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const ArrowTarget& a = targets[i];
    Target& b = t.target[t.count];
    b.weight = operand(a.weight), b.grad = operand(a.grad), b.work = operand(a.work), b.ring = operand(a.ring);
    b.m = operand(a.m), b.v = operand(a.v), b.momentum = operand(a.momentum), b.n = a.weight.size(),
    b.weight_decay = a.weight_decay;
    b.wide = (slots == 1 || b.n % kPack == 0) &&
             wide_access({&a.weight, &a.grad, &a.work, &a.ring, &a.m, &a.v, &a.momentum});
    t.first_chunk[t.count + 1] = t.first_chunk[t.count] + std::int32_t((b.n + kArrowChunk - 1) / kArrowChunk);
    if (++t.count < kTargetsPerLaunch && i + 1 < targets.size()) continue;
    if (t.first_chunk[t.count] > 0) f(t, t.first_chunk[t.count]);
    t.count = 0;
  }
}

}  // namespace

void arrow_observe(const ArrowObserve& a, Stream s) {
  ObserveParams p;
  p.grad = operand(a.grad), p.ring = operand(a.ring), p.vector = operand(a.vector);
  p.gram = a.gram.as<double>(), p.dots = a.dots.as<double>(), p.state = a.state;
  p.n = a.grad.size(), p.begin = a.begin, p.column = a.ring.dim(1);
  p.slots = int(a.ring.dim(0)), p.blocks = int((p.n + kObserveChunk - 1) / kObserveChunk);
  p.wide = p.column % kPack == 0 && p.begin % kPack == 0 && wide_access({&a.grad, &a.ring, &a.vector});
  p.partials =
      static_cast<double*>(scratch(s, std::size_t(max_of(p.blocks, 1) * (2 * p.slots + 3)) * sizeof(double)).data);
  launch("arrow_observe", observe_kernel(), dim3(unsigned(p.blocks)), dim3(kArrowThreads), 0, s, p);
  if (p.gram) launch("arrow_observe finish", finish_observe_kernel(), dim3(1), dim3(160), 0, s, p);
}

void arrow_solve(const ArrowSolve& a, Stream s) {
  if (a.systems.empty()) return;
  const std::size_t bytes = arrow_solve_bytes(a.options.window),
                    together = min_of<std::size_t>(a.systems.size(), kSystemsPerLaunch);
  const bool fits = bytes <= most_shared_bytes();
  SolveParams p;
  p.each = std::int64_t((bytes + sizeof(double) - 1) / sizeof(double));
  p.memory = fits ? nullptr : static_cast<double*>(scratch(s, together * std::size_t(p.each) * sizeof(double)).data);
  for (std::size_t first = 0; first < a.systems.size(); first += together) {
    const std::size_t count = min_of(a.systems.size() - first, together);
    for (std::size_t i = 0; i < count; ++i) {
      const ArrowSolveInput in = arrow_solve_input(a, a.systems[first + i]);
      p.shared = in, p.system[i] = {in.grams, in.dots, in.tensors, in.parameters, in.state};
    }
    launch("arrow_solve", solve_kernel(), dim3(unsigned(count)), dim3(kWarp), fits ? bytes : 0, s, p);
  }
}

void arrow_base(const ArrowBase& a, Stream s) {
  std::int64_t chunks = 0;
  for_each_table(a.targets, 1, [&](const TargetTable&, std::int32_t n) { chunks += n; });
  BaseParams p;
  p.step = a.step, p.state = a.state, p.beta1 = a.beta1, p.beta2 = a.beta2, p.eps = float(a.eps), p.slot = a.slot;
  p.partials = static_cast<double*>(scratch(s, std::size_t(max_of<std::int64_t>(chunks, 1)) * sizeof(double)).data);
  p.first_partial = 0, p.count = chunks;
  for_each_table(a.targets, 1, [&](const TargetTable& table, std::int32_t n) {
    p.table = table;
    launch("arrow_base", base_kernel(), dim3(unsigned(n)), dim3(kArrowThreads), 0, s, p);
    p.first_partial += n;
  });
  p.table.count = 0;
  launch("arrow_base finish", finish_base_kernel(), dim3(1), dim3(kArrowThreads), 0, s, p);
}

void arrow_update(const ArrowUpdate& a, Stream s) {
  for_each_table(a.targets, a.window + 1, [&](const TargetTable& table, std::int32_t n) {
    UpdateParams p;
    p.step = a.step, p.state = a.state, p.beta1 = a.beta1, p.beta2 = a.beta2, p.eps = float(a.eps), p.mu = float(a.mu);
    p.slot = a.slot, p.base_slot = a.base_slot, p.window = a.window, p.graft = a.graft;
    p.precondition_momentum = a.precondition_momentum, p.norm_control = a.norm_control, p.table = table;
    launch("arrow_update", update_kernel(), dim3(unsigned(n)), dim3(kArrowThreads), 0, s, p);
  });
}

}  // namespace eg::EVERGRAD_BACKEND
