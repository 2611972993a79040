// engine/reference/branch_scale.cpp - layer scale (Touvron et al. 2021, arXiv:2103.17239) and stochastic depth (Huang
// et al. 2016, arXiv:1603.09382) of one residual branch.
//
//   forward    y[b,n,c] = x[b,n,c] scale[c] mask[b]
//   backward   dx = dy scale mask,   dscale[c] = sum over b, n of dy x mask
//   mask[b]    0 with probability p, else 1 / (1 - p): the expectation is 1, so evaluation needs no factor
//
// Shapes: x, y [B,...,C]; scale [C]; mask [B]; an absent scale or mask is all ones.
#include <vector>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

double factor(const TensorView& view, std::int64_t i) { return view ? get(view, i) : 1.0; }

}  // namespace

void branch_scale_fwd(const BranchScaleFwd& a, Stream) {
  const std::int64_t size = a.x.size(), columns = a.x.cols();
  const std::int64_t per_sample = size ? size / a.x.dim(0) : 1;
  for (std::int64_t i = 0; i < size; ++i)
    put(a.y, i, get(a.x, i) * factor(a.scale, i % columns) * factor(a.mask, i / per_sample));
}

void branch_scale_bwd(const BranchScaleBwd& a, Stream) {
  const std::int64_t size = a.dy.size(), columns = a.dy.cols();
  const std::int64_t per_sample = size ? size / a.dy.dim(0) : 1;
  std::vector<double> dscale(std::size_t(columns), 0.0);
  for (std::int64_t i = 0; i < size; ++i) {
    const double masked = get(a.dy, i) * factor(a.mask, i / per_sample);
    if (a.dscale) dscale[std::size_t(i % columns)] += masked * get(a.x, i);
    if (a.dx) put(a.dx, i, masked * factor(a.scale, i % columns), a.accumulate);
  }
  for (std::int64_t c = 0; a.dscale && c < columns; ++c) put(a.dscale, c, dscale[std::size_t(c)], a.accumulate_params);
}

void drop_mask(const DropMask& a, Stream) {
  const Key key{a.step->seed, a.stream, std::uint32_t(a.step->step)};
  for (std::int64_t b = 0; b < a.mask.size(); ++b) {
    const bool dropped = key.uniform(std::uint64_t(a.step->first_sample + b)) < a.drop_prob;
    put(a.mask, b, dropped ? 0.0 : 1.0 / (1.0 - a.drop_prob));
  }
}

}  // namespace eg::reference
