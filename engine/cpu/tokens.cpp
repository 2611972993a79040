// engine/cpu/tokens.cpp - prefix tokens, patches and position embedding put together, and pooling of tokens. One image
// per work item; gradients of shared rows are summed over images in order, one token per work item.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/tokens.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void tokens_fwd(const TokensFwd& a, Stream) {
  parallel_for(a.out.dim(0), 1,
               [&](std::int64_t image, std::int64_t, std::int64_t) { EVERGRAD_DISPATCH(tokens_fwd_image, a, image); });
}

void tokens_bwd(const TokensBwd& a, Stream) {
  const std::int64_t tokens = a.dout.dim(1), columns = a.dout.dim(2);
  if (a.dpatches)
    parallel_for(a.dout.dim(0), 1, [&](std::int64_t image, std::int64_t, std::int64_t) {
      EVERGRAD_DISPATCH(tokens_bwd_image, a, image);
    });
  const std::int64_t prefix = a.dprefix ? a.dprefix.rows() : 0, skip = a.dpos ? tokens - a.dpos.rows() : tokens;
  const auto row = [columns](const TensorView& view, std::int64_t i) {
    char* const at = static_cast<char*>(view.data) + std::size_t(i * columns) * size_of(view.dtype);
    return TensorView{at, view.dtype, Shape{columns}};
  };
  parallel_for(tokens, 1, [&](std::int64_t token, std::int64_t, std::int64_t) {
    if (token >= prefix && token < skip) return;
    float* const sum = thread_scratch(std::size_t(columns));
    EVERGRAD_DISPATCH(sum_over_images, a.dout, token, sum);
    if (token < prefix) write_gradient(row(a.dprefix, token), sum, a.accumulate_prefix);
    if (token >= skip) write_gradient(row(a.dpos, token - skip), sum, a.accumulate_pos);
  });
}

void pool_fwd(const PoolFwd& a, Stream) {
  parallel_for(a.x.dim(0), 8, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t image = begin; image < end; ++image) EVERGRAD_DISPATCH(pool_fwd_image, a, image);
  });
}

void pool_bwd(const PoolBwd& a, Stream) {
  parallel_for(a.dx.dim(0), 1,
               [&](std::int64_t image, std::int64_t, std::int64_t) { EVERGRAD_DISPATCH(pool_bwd_image, a, image); });
}

}  // namespace eg::cpu
