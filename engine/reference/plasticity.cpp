// engine/reference/plasticity.cpp - passes of plasticity methods over the weights (methods.md B.5, B.6, B.7, B.10).
#include <algorithm>
#include <cmath>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

void put_weight(const TensorView& weight, const TensorView& work, std::int64_t i, double value) {
  put(weight, i, value);
  if (work) put(work, i, get(weight, i));
}

}  // namespace

void weight_penalty(const WeightPenalty& a, Stream) {
  for (const WeightSegment& s : a.segments)
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      const double anchor = a.anchor ? get(a.anchor, i) : 0.0;
      put(a.grad, i, get(a.grad, i) + double(s.pull) * (get(a.weight, i) - anchor));
    }
}

void weight_perturb(const WeightPerturb& a, Stream) {
  if (!a.step->finite && !a.even_if_skipped) return;
  const double rate = a.noise_slot < 0 ? 1.0 : a.step->slot[a.noise_slot].lr;
  const Key k{a.step->seed, a.stream, std::uint32_t(a.step->step)};
  for (const WeightSegment& s : a.segments)
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      double w = double(s.keep) * get(a.weight, i) + double(s.shift);
      if (a.anchor) w += double(s.pull) * get(a.anchor, i);
      if (s.noise != 0.0f) w += double(s.noise) * rate * k.normal(std::uint64_t(i));
      put_weight(a.weight, a.work, i, std::clamp(w, -double(s.bound), double(s.bound)));
    }
}

void weight_project(const WeightProject& a, Stream) {
  if (!a.step->finite || a.step->step % a.every != 0) return;
  for (const WeightSegment& s : a.segments) {
    double sum = 0.0;
    for (std::int64_t i = s.begin; i < s.end; ++i) sum += get(a.weight, i) * get(a.weight, i);
    if (sum == 0.0) continue;
    const double factor = double(s.bound) / std::sqrt(sum);
    for (std::int64_t i = s.begin; i < s.end; ++i) put_weight(a.weight, a.work, i, factor * get(a.weight, i));
  }
}

void weight_ascent(const WeightAscent& a, Stream) {
  double sum = 0.0;
  for (const WeightSegment& s : a.segments)
    for (std::int64_t i = s.begin; i < s.end && s.pull != 0.0f; ++i) {
      const double g = (a.adaptive ? get(a.weight, i) : 1.0) * get(a.grad, i);
      sum += g * g;
    }
  const double per_gradient = std::isfinite(sum) ? 1.0 / (std::sqrt(sum) + 1e-12) : std::nan("");
  for (const WeightSegment& s : a.segments)
    for (std::int64_t i = s.begin; i < s.end; ++i) {
      const double w = get(a.weight, i), scale = a.adaptive ? w * w : 1.0;
      put(a.to, i, s.pull == 0.0f ? w : w + double(s.pull) * per_gradient * scale * get(a.grad, i));
    }
}

void unit_utility(const UnitUtility& a, Stream) {
  const std::int64_t units = a.sum_abs.size();
  for (std::int64_t f = 0; f < units && a.step->finite; ++f) {
    put(a.steps, f, get(a.steps, f) + 1.0);
    if (a.mean)
      put(a.mean, f, a.decay * get(a.mean, f) + (1.0 - a.decay) * get(a.sum, f) / std::max(1.0, get(a.row_count, 0)));
    if (!a.utility) continue;
    double out = 0.0;
    for (std::int64_t o = 0; o < a.weight_out.rows(); ++o) out += std::abs(get(a.weight_out, o * units + f));
    const double now = get(a.sum_abs, f) / a.rows * (out / double(a.weight_out.rows()));
    put(a.utility, f, a.decay * get(a.utility, f) + (1.0 - a.decay) * now);
  }
  if (a.keep_every > 0 && a.step->step % a.keep_every == 0) return;
  for (std::int64_t f = 0; f < units; ++f) {
    put(a.sum_abs, f, 0.0);
    if (a.sum) put(a.sum, f, 0.0);
  }
}

void unit_reset(const UnitReset& a, Stream) {
  for (std::int64_t n = 0; n < a.units.size(); ++n) {
    const auto unit = std::int64_t(get(a.units, n));
    for (std::int64_t i = 0; i < a.inputs; ++i)
      put(a.array, a.fc1_weight + unit * a.inputs + i, a.rows ? get(a.rows, n * a.inputs + i) : 0.0);
    put(a.array, a.fc1_bias + unit, 0.0);
    for (std::int64_t o = 0; o < a.outputs; ++o) put(a.array, a.fc2_weight + o * a.hidden + unit, 0.0);
  }
}

}  // namespace eg::reference
