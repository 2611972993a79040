// engine/cpu/plasticity.cpp - passes of plasticity methods over the weights, a chunk of each segment per task.
#include <algorithm>
#include <cmath>

#include "engine/cpu/kernels.h"
#include "engine/cpu/normal.h"
#include "engine/parallel.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

/// Calls f(segment, begin, end) for chunks of all segments, in parallel.
template <class F>
void for_each_chunk(std::span<const WeightSegment> segments, const F& f) {
  for (const WeightSegment& s : segments)
    parallel_for(s.end - s.begin, kChunk,
                 [&](std::int64_t first, std::int64_t last, std::int64_t) { f(s, s.begin + first, s.begin + last); });
}

void narrow(const TensorView& work, const float* w, std::int64_t begin, std::int64_t end) {
  if (!work) return;
  for (std::int64_t i = begin; i < end; ++i) work.as<bf16>()[i] = bf16(w[i]);
}

template <class T>
void add_penalty(const WeightPenalty& a, const WeightSegment& s, std::int64_t begin, std::int64_t end) {
  T* const g = a.grad.as<T>();
  const float *const w = a.weight.as<float>(), *const w0 = a.anchor ? a.anchor.as<float>() : nullptr;
  for (std::int64_t i = begin; i < end; ++i) g[i] = T(float(g[i]) + s.pull * (w[i] - (w0 ? w0[i] : 0.0f)));
}

}  // namespace

void weight_penalty(const WeightPenalty& a, Stream) {
  for_each_chunk(a.segments, [&](const WeightSegment& s, std::int64_t begin, std::int64_t end) {
    if (a.grad.dtype == DType::bf16)
      add_penalty<bf16>(a, s, begin, end);
    else
      add_penalty<float>(a, s, begin, end);
  });
}

void weight_perturb(const WeightPerturb& a, Stream) {
  if (!a.step->finite && !a.even_if_skipped) return;
  const double rate = a.noise_slot < 0 ? 1.0 : a.step->slot[a.noise_slot].lr;
  const Key k{a.step->seed, a.stream, std::uint32_t(a.step->step)};
  const float* const anchor = a.anchor ? a.anchor.as<float>() : nullptr;
  for_each_chunk(a.segments, [&](const WeightSegment& s, std::int64_t begin, std::int64_t end) {
    float* const w = a.weight.as<float>();
    const float noise = float(double(s.noise) * rate);
    for (std::int64_t i = begin; i < end; ++i) {
      float x = s.keep * w[i] + s.shift;
      if (anchor) x += s.pull * anchor[i];
      if (s.noise != 0.0f) x += noise * normal(k, i);
      w[i] = std::clamp(x, -s.bound, s.bound);
    }
    narrow(a.work, w, begin, end);
  });
}

void weight_project(const WeightProject& a, Stream) {
  if (!a.step->finite || a.step->step % a.every != 0) return;
  for (const WeightSegment& s : a.segments) {
    float* const w = a.weight.as<float>();
    std::vector<double> partial(std::size_t(chunks_of(s.end - s.begin, kChunk)));
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t chunk) {
      double sum = 0.0;
      for (std::int64_t i = s.begin + first; i < s.begin + last; ++i) sum += double(w[i]) * double(w[i]);
      partial[std::size_t(chunk)] = sum;
    });
    double sum = 0.0;
    for (const double p : partial) sum += p;
    if (sum == 0.0) continue;
    const float factor = float(double(s.bound) / std::sqrt(sum));
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t) {
      for (std::int64_t i = s.begin + first; i < s.begin + last; ++i) w[i] *= factor;
      narrow(a.work, w, s.begin + first, s.begin + last);
    });
  }
}

namespace {

/// Sum of squares of what the ascent's length is measured by, in chunk order.
template <class G>
double ascent_sum(const WeightAscent& a) {
  const float* const w = a.weight.as<float>();
  const G* const g = a.grad.as<G>();
  double sum = 0.0;
  for (const WeightSegment& s : a.segments) {
    if (s.pull == 0.0f) continue;
    std::vector<double> partial(std::size_t(chunks_of(s.end - s.begin, kChunk)));
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t chunk) {
      double part = 0.0;
      for (std::int64_t i = s.begin + first; i < s.begin + last; ++i) {
        const double x = (a.adaptive ? double(w[i]) : 1.0) * double(float(g[i]));
        part += x * x;
      }
      partial[std::size_t(chunk)] = part;
    });
    for (const double p : partial) sum += p;
  }
  return sum;
}

template <class G, class T>
void ascend(const WeightAscent& a) {
  const double sum = ascent_sum<G>(a);
  const double per_gradient = std::isfinite(sum) ? 1.0 / (std::sqrt(sum) + 1e-12) : std::nan("");
  for_each_chunk(a.segments, [&](const WeightSegment& s, std::int64_t begin, std::int64_t end) {
    const float* const w = a.weight.as<float>();
    const G* const g = a.grad.as<G>();
    T* const to = a.to.as<T>();
    const float factor = float(double(s.pull) * per_gradient);
    for (std::int64_t i = begin; i < end; ++i) {
      const float scale = a.adaptive ? w[i] * w[i] : 1.0f;
      to[i] = T(s.pull == 0.0f ? w[i] : w[i] + factor * scale * float(g[i]));
    }
  });
}

}  // namespace

void weight_ascent(const WeightAscent& a, Stream) {
  const bool narrow_to = a.to.dtype == DType::bf16;
  if (a.grad.dtype == DType::bf16)
    narrow_to ? ascend<bf16, bf16>(a) : ascend<bf16, float>(a);
  else
    narrow_to ? ascend<float, bf16>(a) : ascend<float, float>(a);
}

void unit_utility(const UnitUtility& a, Stream) {
  const std::int64_t units = a.sum_abs.size();
  double* const sums = a.sum_abs.as<double>();
  const bool clear = a.keep_every == 0 || a.step->step % a.keep_every != 0;
  const double rows_seen = a.mean ? std::max(1.0, *a.row_count.as<double>()) : 1.0;
  parallel_for(units, 64, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    if (a.step->finite && a.utility) {
      const float* const w = a.weight_out.as<float>();
      std::vector<float> out(std::size_t(end - begin));
      for (std::int64_t o = 0; o < a.weight_out.rows(); ++o)
        for (std::int64_t f = begin; f < end; ++f) out[std::size_t(f - begin)] += std::abs(w[o * units + f]);
      for (std::int64_t f = begin; f < end; ++f) {
        const float now = float(sums[f] / a.rows) *
                          (out[std::size_t(f - begin)] / float(std::max<std::int64_t>(1, a.weight_out.rows())));
        float& utility = a.utility.as<float>()[f];
        utility = float(a.decay) * utility + float(1.0 - a.decay) * now;
      }
    }
    for (std::int64_t f = begin; f < end; ++f) {
      if (a.step->finite) a.steps.as<std::int32_t>()[f] += 1;
      if (a.step->finite && a.mean) {
        float& mean = a.mean.as<float>()[f];
        mean = float(a.decay) * mean + float(1.0 - a.decay) * float(a.sum.as<double>()[f] / rows_seen);
      }
      if (clear) sums[f] = 0.0;
      if (clear && a.sum) a.sum.as<double>()[f] = 0.0;
    }
  });
}

namespace {

template <class T>
void reset_units(const UnitReset& a) {
  T* const to = a.array.as<T>();
  for (std::int64_t n = 0; n < a.units.size(); ++n) {
    const std::int64_t unit = a.units.as<std::int32_t>()[n];
    for (std::int64_t i = 0; i < a.inputs; ++i)
      to[a.fc1_weight + unit * a.inputs + i] = T(a.rows ? a.rows.as<float>()[n * a.inputs + i] : 0.0f);
    to[a.fc1_bias + unit] = T(0.0f);
    for (std::int64_t o = 0; o < a.outputs; ++o) to[a.fc2_weight + o * a.hidden + unit] = T(0.0f);
  }
}

}  // namespace

void unit_reset(const UnitReset& a, Stream) {
  if (a.array.dtype == DType::bf16)
    reset_units<bf16>(a);
  else
    reset_units<float>(a);
}

}  // namespace eg::cpu
