// engine/cpu/layer_norm.cpp - layer norm over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450), with the
// residual sum before it, and its gradient.
//
// A row stays in L1 while it is read three times: sum, sum of squared distances from the mean (two passes, because the
// difference of two large sums would lose the variance of rows with a large mean), result. In backward, with
// h = (x - mean) rstd and g = dy gamma: dx = rstd (g - mean(g) - h mean(g h)) + dsum. dgamma = sum of dy h and
// dbeta = sum of dy go through one partial per chunk of rows, added in chunk order.
// Bound by memory: forward reads x (and residual) and writes y (and sum); backward reads dy, x (and dsum), writes dx.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/layer_norm.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void layer_norm_fwd(const LayerNormFwd& a, Stream) {
  const std::vector<float> gamma = as_floats(a.gamma), beta = as_floats(a.beta);
  EVERGRAD_DISPATCH(layer_norm_fwd, a, gamma.data(), beta.data());
}

void layer_norm_bwd(const LayerNormBwd& a, Stream) {
  const std::vector<float> gamma = as_floats(a.gamma);
  const std::int64_t columns = a.x.cols(), rows = a.x.rows(), grain = rows_per_chunk(rows, columns);
  const std::int64_t chunks = std::max<std::int64_t>(1, chunks_of(rows, grain)), stride = 2 * columns;
  std::vector<float> partials(std::size_t(chunks * stride));
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    EVERGRAD_DISPATCH(layer_norm_bwd_range, a, gamma.data(), begin, end, partials.data() + chunk * stride);
  });
  for (std::int64_t c = 1; c < chunks; ++c)
    EVERGRAD_DISPATCH(add_floats, partials.data(), partials.data() + c * stride, stride);
  write_gradient(a.dgamma, partials.data(), a.accumulate_params);
  write_gradient(a.dbeta, partials.data() + columns, a.accumulate_params);
}

}  // namespace eg::cpu
