// engine/cpu/upgd.cpp - UPGD (see engine/reference/upgd.cpp): one pass for the utilities and their maximum, one for the
// weights.
#include <algorithm>
#include <cmath>

#include "engine/cpu/kernels.h"
#include "engine/cpu/normal.h"
#include "engine/parallel.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

}  // namespace

void upgd_update(const UpgdUpdate& a, Stream) {
  if (!a.step->finite) return;
  float *const w = a.weight.as<float>(), *const utility = a.utility.as<float>();
  const float* const g = a.grad.as<float>();
  bf16* const work = a.work ? a.work.as<bf16>() : nullptr;
  const float clip = float(a.step->clip_scale), beta = float(a.beta), rest = float(1.0 - a.beta);
  float largest = float(kUpgdLeastMaximum);
  for (const Segment& s : a.segments) {
    std::vector<float> partial(std::size_t(chunks_of(s.end - s.begin, kChunk)), largest);
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t chunk) {
      float most = partial[std::size_t(chunk)];
      for (std::int64_t i = s.begin + first; i < s.begin + last; ++i) {
        utility[i] = beta * utility[i] - rest * (clip * g[i] * w[i]);
        most = std::max(most, utility[i]);
      }
      partial[std::size_t(chunk)] = most;
    });
    for (const float p : partial) largest = std::max(largest, p);
  }
  const Key k{a.step->seed, a.stream, std::uint32_t(a.step->step)};
  const float noise = float(a.noise);
  for (const Segment& s : a.segments) {
    const StepSlot& slot = a.step->slot[s.slot];
    const double rate = slot.lr * double(s.lr_scale), corrected = 1.0 - std::pow(a.beta, double(slot.t + 1));
    const float lr = float(rate), shrink = float(1.0 - rate * double(s.weight_decay));
    const float scale = float(1.0 / (corrected * double(largest)));
    parallel_for(s.end - s.begin, kChunk, [&](std::int64_t first, std::int64_t last, std::int64_t) {
      for (std::int64_t i = s.begin + first; i < s.begin + last; ++i) {
        const float open = 1.0f / (1.0f + std::exp(utility[i] * scale)), d = clip * g[i];
        const float n = noise == 0.0f ? 0.0f : noise * normal(k, i);
        w[i] = shrink * w[i] - lr * (a.protects ? (d + n) * open : d + n * open);
      }
      if (work)
        for (std::int64_t i = s.begin + first; i < s.begin + last; ++i) work[i] = bf16(w[i]);
    });
  }
}

}  // namespace eg::cpu
