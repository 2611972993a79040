// engine/reference/optimizer.cpp - global norm, SGD, Adam and AdamW (methods.md A.1, A.2) as one reads them in a paper.
#include <algorithm>
#include <cmath>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"
#include "engine/step_record.h"

namespace eg::reference {

void global_norm(const GlobalNorm& a, Stream) {
  double sum = a.grad ? 0.0 : a.step->grad_norm_sq;
  for (const Segment& s : a.segments)
    for (std::int64_t i = s.begin; i < s.end; ++i) sum += get(a.grad, i) * get(a.grad, i);
  finish_norm(sum, *a.step);
}

void step_finish(const StepFinish& a, Stream) { advance_counts(a); }

void sgd_update(const SgdUpdate& a, Stream) {
  if (!a.step->finite) return;
  for (const Segment& s : a.segments) {
    const StepSlot& slot = a.step->slot[s.slot];
    const double lr = slot.lr * double(s.lr_scale), decay = double(s.weight_decay);
    const double clip = a.clipped ? 1.0 : a.step->clip_scale;
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      const double w = get(a.weight, i);
      const double d = clip * get(a.grad, i) + (a.decoupled ? 0.0 : decay * w);
      double u = d;
      if (a.momentum) {
        const double b = slot.t == 0 ? d : a.mu * get(a.momentum, i) + (1.0 - a.dampening) * d;
        put(a.momentum, i, b);
        u = a.nesterov ? d + a.mu * b : b;
      }
      put(a.weight, i, (a.decoupled ? 1.0 - lr * decay : 1.0) * w - lr * u);
      if (a.work) put(a.work, i, get(a.weight, i));
    }
  }
}

namespace {

/// Updates since element i of the segment began to learn: the slot's count, or that of the element's own row or column.
double updates_so_far(const AdamUpdate& a, const Segment& s, std::int64_t i) {
  double t = double(a.step->slot[s.slot].t);
  if (a.row_steps) t = std::min(t, get(a.row_steps, (i - s.begin) / a.columns));
  if (a.column_steps) t = std::min(t, get(a.column_steps, (i - s.begin) % a.columns));
  return t;
}

}  // namespace

void adam_update(const AdamUpdate& a, Stream) {
  if (!a.step->finite) return;
  for (const Segment& s : a.segments) {
    const double lr = a.step->slot[s.slot].lr * double(s.lr_scale), decay = double(s.weight_decay);
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      const double w = get(a.weight, i), t = updates_so_far(a, s, i) + 1.0;
      const double g = a.step->clip_scale * get(a.grad, i) + (a.decoupled ? 0.0 : decay * w);
      const double m = a.beta1 * get(a.m, i) + (1.0 - a.beta1) * g;
      const double v = a.beta2 * get(a.v, i) + (1.0 - a.beta2) * g * g;
      put(a.m, i, m);
      put(a.v, i, v);
      const double m_hat = m / (1.0 - std::pow(a.beta1, t)), v_hat = v / (1.0 - std::pow(a.beta2, t));
      put(a.weight, i, (a.decoupled ? 1.0 - lr * decay : 1.0) * w - lr * (m_hat / (std::sqrt(v_hat) + a.eps)));
      if (a.work) put(a.work, i, get(a.weight, i));
    }
  }
}

void ema_update(const EmaUpdate& a, Stream) {
  if (a.step && !a.step->finite) return;
  for (std::int64_t i = 0; i < a.weight.size(); ++i)
    put(a.average, i, a.decay * get(a.average, i) + (1.0 - a.decay) * get(a.weight, i));
}

}  // namespace eg::reference
