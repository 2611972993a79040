// cuda/kernels/tokens.cpp - host entries of tokens.cu.
#include "cuda/kernels/tokens.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/launch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// to[r] (+)= sum over images of dout[b, first row + r].
void sum_over_images(const char* name, const TensorView& dout, std::int64_t first, const TensorView& to,
                     bool accumulate, Stream s) {
  ColumnSumParams p;
  p.x = operand(dout), p.out = operand(to);
  p.rows = dout.dim(0), p.columns = to.size(), p.row_stride = dout.dim(1) * dout.dim(2), p.offset = first * dout.dim(2);
  p.accumulate = accumulate;
  sum_columns(name, p, s);
}

}  // namespace

void tokens_fwd(const TokensFwd& a, Stream s) {
  TokensParams p;
  p.patches = operand(a.patches), p.prefix = operand(a.prefix), p.pos = operand(a.pos), p.out = operand(a.out);
  p.batch = a.out.dim(0), p.tokens = a.out.dim(1), p.columns = a.out.dim(2), p.patch_count = a.patches.dim(1);
  p.without_pos = a.pos ? p.tokens - a.pos.rows() : p.tokens;
  p.accumulate = false, p.wide = p.columns % kPack == 0 && wide_access({&a.patches, &a.prefix, &a.pos, &a.out});
  const std::int64_t n = a.out.size();
  launch("tokens_fwd", tokens_kernel(false), dim3(stream_blocks(n)), dim3(stream_threads(n)), 0, s, p);
}

void tokens_bwd(const TokensBwd& a, Stream s) {
  if (a.dpatches) {
    TokensParams p;
    p.patches = operand(a.dpatches), p.prefix = p.pos = operand({}), p.out = operand(a.dout);
    p.batch = a.dout.dim(0), p.tokens = a.dout.dim(1), p.columns = a.dout.dim(2), p.patch_count = a.dpatches.dim(1);
    p.without_pos = 0, p.accumulate = a.accumulate,
    p.wide = p.columns % kPack == 0 && wide_access({&a.dpatches, &a.dout});
    const std::int64_t n = a.dpatches.size();
    launch("tokens_bwd", tokens_kernel(true), dim3(stream_blocks(n)), dim3(stream_threads(n)), 0, s, p);
  }
  if (a.dprefix) sum_over_images("tokens_bwd prefix", a.dout, 0, a.dprefix, a.accumulate_prefix, s);
  if (a.dpos) sum_over_images("tokens_bwd pos", a.dout, a.dout.dim(1) - a.dpos.rows(), a.dpos, a.accumulate_pos, s);
}

namespace {
PoolParams pool_params(const TensorView& x, const TensorView& out, std::int64_t first, std::int64_t count,
                       bool accumulate) {
  PoolParams p;
  p.x = operand(x), p.out = operand(out);
  p.batch = x.dim(0), p.tokens = x.dim(1), p.columns = x.dim(2), p.first = first, p.count = count;
  p.accumulate = accumulate, p.wide = p.columns % kPack == 0 && wide_access({&x, &out});
  return p;
}
}  // namespace

void pool_fwd(const PoolFwd& a, Stream s) {
  const PoolParams p = pool_params(a.x, a.out, a.first, a.count, false);
  // Few threads that each go far: small blocks, so that they spread over the GPU.
  launch("pool_fwd", pool_kernel(false), dim3(unsigned(ceil_div<std::int64_t>(a.out.size(), 2 * kWarp * kPack))),
         dim3(2 * kWarp), 0, s, p);
}
void pool_bwd(const PoolBwd& a, Stream s) {
  const PoolParams p = pool_params(a.dx, a.dout, a.first, a.count, a.accumulate);
  const std::int64_t n = a.dx.size();
  launch("pool_bwd", pool_kernel(true), dim3(stream_blocks(n)), dim3(stream_threads(n)), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
