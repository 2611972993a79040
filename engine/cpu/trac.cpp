// engine/cpu/trac.cpp - the passes of TRAC over the weights, in chunks; sums of chunks are added in order.
#include "engine/trac_tune.h"

#include <algorithm>
#include <cmath>

#include "engine/cpu/kernels.h"
#include "engine/parallel.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kChunk = 1 << 14;

}  // namespace

void trac_measure(const TracMeasure& a, Stream) {
  if (!a.step->finite) return;
  double* const state = a.state.as<double>();
  const double divisor = state[kTracScale] + kTracEps;
  const std::int64_t n = a.weight.size();
  const float *const w = a.weight.as<float>(), *const anchor = a.anchor.as<float>();
  const float *const g = a.grad.as<float>(), *const way = a.way ? a.way.as<float>() : nullptr;
  std::vector<double> partial(std::size_t(chunks_of(n, kChunk)));
  parallel_for(n, kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    double sum = 0.0;
    if (way)
      for (std::int64_t i = begin; i < end; ++i) sum += double(g[i]) * double(way[i]);
    else
      for (std::int64_t i = begin; i < end; ++i) sum += double(g[i]) * double(w[i] - anchor[i]);
    partial[std::size_t(chunk)] = way ? sum : sum / divisor;
  });
  double h = 0.0;
  for (const double p : partial) h += p;
  h *= a.step->clip_scale;
  if (std::isfinite(h))
    trac_tune(state, h);
  else
    a.step->finite = 0;
}

void trac_apply(const TracApply& a, Stream) {
  if (!a.step->finite) return;
  const double* const state = a.state.as<double>();
  const float scale = float(std::max(state[kTracScale], 0.0));
  const float divisor = float(state[kTracBefore] + kTracEps);
  float *const w = a.weight.as<float>(), *const way = a.way ? a.way.as<float>() : nullptr;
  const float *const before = a.before.as<float>(), *const anchor = a.anchor.as<float>();
  bf16* const work = a.work ? a.work.as<bf16>() : nullptr;
  parallel_for(a.weight.size(), kChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i) {
      const float d = (way ? way[i] : (before[i] - anchor[i]) / divisor) + (w[i] - before[i]);
      if (way) way[i] = d;
      w[i] = anchor[i] + scale * d;
    }
    if (work)
      for (std::int64_t i = begin; i < end; ++i) work[i] = bf16(w[i]);
  });
}

}  // namespace eg::cpu
