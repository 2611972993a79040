// engine/reference/upgd.cpp - utility-based perturbed gradient descent (Elsayed & Mahmood 2024, arXiv:2404.00781;
// methods.md A.7).
//
//   d = clip g;  u = beta u - (1 - beta) d w          what the loss would gain if w were zero, to first order
//   M = max(1e-12, largest u);  open = 1 - sigmoid(u / (1 - beta^t) / M)
//   w = (1 - lr decay) w - lr (d + noise n) open      or, not protecting, - lr (d + noise n open)
#include <algorithm>
#include <cmath>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void upgd_update(const UpgdUpdate& a, Stream) {
  if (!a.step->finite) return;
  double largest = kUpgdLeastMaximum;
  for (const Segment& s : a.segments)
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      const double d = a.step->clip_scale * get(a.grad, i);
      put(a.utility, i, a.beta * get(a.utility, i) - (1.0 - a.beta) * d * get(a.weight, i));
      largest = std::max(largest, get(a.utility, i));
    }
  const Key k{a.step->seed, a.stream, std::uint32_t(a.step->step)};
  for (const Segment& s : a.segments) {
    const StepSlot& slot = a.step->slot[s.slot];
    const double lr = slot.lr * double(s.lr_scale), correction = 1.0 - std::pow(a.beta, double(slot.t + 1));
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      const double d = a.step->clip_scale * get(a.grad, i);
      const double open = 1.0 / (1.0 + std::exp(get(a.utility, i) / correction / largest));
      const double n = a.noise == 0.0 ? 0.0 : a.noise * k.normal(std::uint64_t(i));
      const double u = a.protects ? (d + n) * open : d + n * open;
      put(a.weight, i, (1.0 - lr * double(s.weight_decay)) * get(a.weight, i) - lr * u);
      if (a.work) put(a.work, i, get(a.weight, i));
    }
  }
}

}  // namespace eg::reference
