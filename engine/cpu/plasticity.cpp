// engine/cpu/plasticity.cpp - passes of plasticity methods over the weights, a chunk of each segment per task.
#include <algorithm>
#include <cmath>

#include "engine/cpu/kernels.h"
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

/// Key::normal in fp32: the logarithm and the cosine are what this pass spends its time on.
float normal(const Key& k, std::int64_t index) {
  const std::uint64_t i = 2 * std::uint64_t(index), block = i / 4;
  const Philox4 words = philox4x32_10({std::uint32_t(block), std::uint32_t(block >> 32), k.step, k.stream},
                                      std::uint32_t(k.seed), std::uint32_t(k.seed >> 32));
  const auto uniform = [](std::uint32_t bits) { return (float(bits >> 8) + 0.5f) * 0x1p-24f; };
  const float u = uniform(words[i % 4]), v = uniform(words[i % 4 + 1]);
  return std::sqrt(-2.0f * std::log(u)) * std::cos(6.28318531f * v);
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

}  // namespace eg::cpu
