// engine/cpu/optimizer.cpp - fused updates over the flat arena: every weight is read and written once per step.
#include <cmath>

#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#include "engine/step_record.h"

namespace eg::cpu {
namespace {

/// AdamW for one range: correction1 = 1 / (1 - beta1^t), correction2 = 1 / sqrt(1 - beta2^t).
struct AdamStep {
  float lr, shrink, clip, coupled, beta1, rest1, beta2, rest2, eps, correction1, correction2;
};
struct SgdStep {
  float lr, shrink, clip, coupled, mu, keep;
  bool first, nesterov;
};

}  // namespace
}  // namespace eg::cpu

#define EVERGRAD_KERNEL_BODY "engine/cpu/optimizer.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kChunk = 1 << 14;  // elements: 64 KiB of each array

void narrow(const TensorView& work, const float* weight, std::int64_t begin, std::int64_t n) {
  if (work) EVERGRAD_DISPATCH(narrow_range, weight, work.as<bf16>() + begin, n);
}

double sum_of_chunks(const TensorView& grad, const Segment& s) {
  std::vector<double> partial(std::size_t(chunks_of(s.end - s.begin, kChunk)));
  parallel_for(s.end - s.begin, kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    double& sum = partial[std::size_t(chunk)];
    if (grad.dtype == DType::bf16)
      EVERGRAD_DISPATCH(sum_of_squares, grad.as<bf16>() + s.begin + begin, end - begin, sum);
    else
      EVERGRAD_DISPATCH(sum_of_squares, grad.as<float>() + s.begin + begin, end - begin, sum);
  });
  double total = 0.0;
  for (const double p : partial) total += p;
  return total;
}

AdamStep adam_step(const AdamUpdate& a, const Segment& s, std::int64_t updates) {
  const double lr = a.step->slot[s.slot].lr * double(s.lr_scale), t = double(updates + 1);
  AdamStep u{};
  u.lr = float(lr);
  u.shrink = a.decoupled ? float(1.0 - lr * double(s.weight_decay)) : 1.0f;
  u.clip = float(a.step->clip_scale);
  u.coupled = a.decoupled ? 0.0f : s.weight_decay;
  u.beta1 = float(a.beta1), u.rest1 = float(1.0 - a.beta1);
  u.beta2 = float(a.beta2), u.rest2 = float(1.0 - a.beta2);
  u.eps = float(a.eps);
  u.correction1 = float(1.0 / (1.0 - std::pow(a.beta1, t)));
  u.correction2 = float(1.0 / std::sqrt(1.0 - std::pow(a.beta2, t)));
  return u;
}

/// A matrix some of whose rows or columns were replaced: runs of elements with equal counts share one AdamStep.
void adam_replaced_units(const AdamUpdate& a, const Segment& s) {
  check(a.rows * a.columns == s.end - s.begin, Kind::shape, [&] {
    return cat("adam_update: ", a.rows, " x ", a.columns, " step counts do not fit a segment of ", s.end - s.begin,
               " elements");
  });
  const auto updates = [&](std::int64_t row, std::int64_t column) {
    std::int64_t t = a.step->slot[s.slot].t;
    if (a.row_steps) t = std::min<std::int64_t>(t, a.row_steps.as<std::int32_t>()[row]);
    if (a.column_steps) t = std::min<std::int64_t>(t, a.column_steps.as<std::int32_t>()[column]);
    return t;
  };
  parallel_for(a.rows, 16, [&](std::int64_t first, std::int64_t last, std::int64_t) {
    for (std::int64_t row = first; row < last; ++row)
      for (std::int64_t column = 0, end = 0; column < a.columns; column = end) {
        const std::int64_t t = updates(row, column);
        for (end = column + 1; end < a.columns && updates(row, end) == t;) ++end;
        const std::int64_t at = s.begin + row * a.columns + column;
        float* const w = a.weight.as<float>() + at;
        EVERGRAD_DISPATCH(adam_range, adam_step(a, s, t), w, a.grad.as<float>() + at, a.m.as<float>() + at,
                          a.v.as<float>() + at, end - column);
        narrow(a.work, w, at, end - column);
      }
  });
}

}  // namespace

void global_norm(const GlobalNorm& a, Stream) {
  double total = a.grad ? 0.0 : a.step->grad_norm_sq;
  for (const Segment& s : a.segments) total += sum_of_chunks(a.grad, s);
  finish_norm(total, *a.step);
}

void step_finish(const StepFinish& a, Stream) { advance_counts(a); }

void adam_update(const AdamUpdate& a, Stream) {
  if (!a.step->finite) return;
  for (const Segment& s : a.segments) {
    if (a.row_steps || a.column_steps) {
      adam_replaced_units(a, s);
      continue;
    }
    const AdamStep u = adam_step(a, s, a.step->slot[s.slot].t);
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t) {
      const std::int64_t at = s.begin + first, n = last - first;
      float* const w = a.weight.as<float>() + at;
      EVERGRAD_DISPATCH(adam_range, u, w, a.grad.as<float>() + at, a.m.as<float>() + at, a.v.as<float>() + at, n);
      narrow(a.work, w, at, n);
    });
  }
}

void sgd_update(const SgdUpdate& a, Stream) {
  if (!a.step->finite) return;
  for (const Segment& s : a.segments) {
    const StepSlot& slot = a.step->slot[s.slot];
    const double lr = slot.lr * double(s.lr_scale);
    SgdStep u{};
    u.lr = float(lr);
    u.shrink = a.decoupled ? float(1.0 - lr * double(s.weight_decay)) : 1.0f;
    u.clip = a.clipped ? 1.0f : float(a.step->clip_scale);
    u.coupled = a.decoupled ? 0.0f : s.weight_decay;
    u.mu = float(a.mu), u.keep = float(1.0 - a.dampening);
    u.first = slot.t == 0, u.nesterov = a.nesterov;
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t) {
      const std::int64_t at = s.begin + first, n = last - first;
      float* const w = a.weight.as<float>() + at;
      float* const b = a.momentum ? a.momentum.as<float>() + at : nullptr;
      EVERGRAD_DISPATCH(sgd_range, u, w, a.grad.as<float>() + at, b, n);
      narrow(a.work, w, at, n);
    });
  }
}

void ema_update(const EmaUpdate& a, Stream) {
  if (a.step && !a.step->finite) return;
  parallel_for(a.weight.size(), kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    EVERGRAD_DISPATCH(ema_range, a.average.as<float>() + begin, a.weight.as<float>() + begin, float(a.decay),
                      end - begin);
  });
}

}  // namespace eg::cpu
