// engine/cpu/gelu.cpp - GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415), its gradient, and the per-unit counters that
// measure plasticity. Bound by memory: ViT-S/16, batch 8: [1576, 1536] fp32 is 9.7 MB in and 9.7 MB out.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/gelu.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void gelu_fwd(const GeluFwd& a, Stream) { EVERGRAD_DISPATCH(gelu_fwd, a); }
void gelu_bwd(const GeluBwd& a, Stream) { EVERGRAD_DISPATCH(gelu_bwd, a); }

void unit_statistics(const UnitStatistics& a, Stream) {
  const std::int64_t units = a.z.cols(), rows = units ? a.z.size() / units : 0, grain = rows_per_chunk(rows, units);
  const std::int64_t chunks = chunks_of(rows, grain), stride = generic::kSlots * units;
  std::vector<float> partials(std::size_t(chunks * stride));
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    EVERGRAD_DISPATCH(count_units_rows, a, begin, end - begin, partials.data() + chunk * stride);
  });
  const TensorView* const sums[] = {&a.positive, &a.alive_magnitude, &a.alive_gradient, &a.sum_abs, &a.sum};
  for (std::int64_t c = 0; c < chunks; ++c) {
    const float* const part = partials.data() + c * stride;
    for (int s = 0; s < generic::kSlots - 1; ++s)
      if (double* const out = sums[s]->as<double>())
        for (std::int64_t i = 0; i < units; ++i) out[i] += double(part[s * units + i]);
    if (double* const out = a.max_value.as<double>())
      for (std::int64_t i = 0; i < units; ++i)
        out[i] = std::max(out[i], double(part[(generic::kSlots - 1) * units + i]));
  }
  if (a.rows) *a.rows.as<double>() += double(a.z.rows());
}

}  // namespace eg::cpu
