// engine/cpu/branch_scale.cpp - layer scale (Touvron et al. 2021, arXiv:2103.17239) and stochastic depth (Huang et al.
// 2016, arXiv:1603.09382) of one residual branch: one pass over the branch. The gradient of the scale is a sum over
// rows: one partial per chunk of rows, added in chunk order.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/branch_scale.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {
const float* pointer(const std::vector<float>& values) { return values.empty() ? nullptr : values.data(); }
// Rows of one sample: all axes between the first and the last.
std::int64_t rows_per_sample(const TensorView& x) {
  return x.shape.rank() < 2 || x.dim(0) == 0 ? 1 : std::max<std::int64_t>(1, x.rows() / x.dim(0));
}
}  // namespace

void branch_scale_fwd(const BranchScaleFwd& a, Stream) {
  const std::vector<float> scale = as_floats(a.scale);
  const std::int64_t tokens = rows_per_sample(a.x);
  parallel_for(a.x.rows(), rows_per_chunk(a.x.rows(), a.x.cols()),
               [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                 EVERGRAD_DISPATCH(branch_scale_fwd_range, a, pointer(scale), tokens, begin, end);
               });
}

void branch_scale_bwd(const BranchScaleBwd& a, Stream) {
  const std::vector<float> scale = as_floats(a.scale);
  const std::int64_t tokens = rows_per_sample(a.dy), rows = a.dy.rows(), columns = a.dy.cols();
  const std::int64_t grain = rows_per_chunk(rows, columns), chunks = chunks_of(rows, grain);
  std::vector<float> partials(a.dscale ? std::size_t(std::max<std::int64_t>(1, chunks) * columns) : 0);
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    float* const partial = partials.empty() ? nullptr : partials.data() + chunk * columns;
    EVERGRAD_DISPATCH(branch_scale_bwd_range, a, pointer(scale), tokens, begin, end, partial);
  });
  if (!a.dscale) return;
  for (std::int64_t c = 1; c < chunks; ++c)
    for (std::int64_t i = 0; i < columns; ++i) partials[std::size_t(i)] += partials[std::size_t(c * columns + i)];
  write_gradient(a.dscale, partials.data(), a.accumulate_params);
}

void drop_mask(const DropMask& a, Stream) {
  const Key key{a.step->seed, a.stream, std::uint32_t(a.step->step)};
  const std::uint64_t first = std::uint64_t(a.step->first_sample);
  float* const mask = a.mask.as<float>();
  for (std::int64_t b = 0; b < a.mask.size(); ++b)
    mask[b] = key.uniform(first + std::uint64_t(b)) < a.drop_prob ? 0.0f : float(1.0 / (1.0 - a.drop_prob));
}

}  // namespace eg::cpu
