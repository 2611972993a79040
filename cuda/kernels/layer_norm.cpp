// cuda/kernels/layer_norm.cpp - host entries of layer_norm.cu.
#include "cuda/kernels/layer_norm.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// Packs that a lane holds, or 0 where a row does not fit registers or cannot be read wide.
int packs_of(std::int64_t columns, bool wide) {
  const std::int64_t packs = (columns + kWarp * kPack - 1) / (kWarp * kPack);
  return wide && columns % kPack == 0 && packs <= kNormMaxPacks ? int(packs) : 0;
}
unsigned row_blocks(std::int64_t rows) { return unsigned((rows + kNormWarps - 1) / kNormWarps); }

}  // namespace

void layer_norm_fwd(const LayerNormFwd& a, Stream s) {
  LayerNormFwdParams p;
  p.x = operand(a.x), p.residual = operand(a.residual), p.sum = operand(a.sum);
  p.gamma = operand(a.gamma), p.beta = operand(a.beta), p.y = operand(a.y);
  p.mean = a.mean.as<float>(), p.rstd = a.rstd.as<float>(), p.rows = a.x.rows(), p.columns = int(a.x.cols()),
  p.eps = float(a.eps);
  const int packs = packs_of(p.columns, wide_access({&a.x, &a.residual, &a.sum, &a.gamma, &a.beta, &a.y}));
  launch("layer_norm_fwd", layer_norm_fwd_kernel(packs), dim3(row_blocks(p.rows)), dim3(kNormWarps * kWarp), 0, s, p);
}

void layer_norm_bwd(const LayerNormBwd& a, Stream s) {
  LayerNormBwdParams p;
  p.dy = operand(a.dy), p.dsum = operand(a.dsum), p.x = operand(a.x), p.gamma = operand(a.gamma), p.dx = operand(a.dx);
  p.mean = a.mean.as<float>(), p.rstd = a.rstd.as<float>(), p.partials = nullptr;
  p.rows = a.x.rows(), p.columns = int(a.x.cols()), p.accumulate = a.accumulate;
  const int packs = packs_of(p.columns, wide_access({&a.dy, &a.dsum, &a.x, &a.gamma, &a.dx}));
  const bool params = a.dgamma || a.dbeta;
  const unsigned blocks = packs ? min_of<unsigned>(row_blocks(p.rows), kNormBlocks) : row_blocks(p.rows);
  const std::int64_t chunks = packs ? blocks : max_of<std::int64_t>(1, min_of<std::int64_t>(p.rows / 256, 64));
  if (params) p.partials = static_cast<float*>(scratch(s, std::size_t(chunks * 2 * p.columns) * sizeof(float)).data);
  if (params && !packs && p.columns > 0)  // before dx, which may overwrite dy
    launch("layer_norm_bwd columns", layer_norm_columns_kernel(),
           dim3(unsigned((p.columns + kColumns - 1) / kColumns), unsigned(chunks)), dim3(kColumns, kRowLanes), 0, s, p);
  launch("layer_norm_bwd", layer_norm_bwd_kernel(packs), dim3(blocks), dim3(kNormWarps * kWarp), 0, s, p);
  // The two halves of a partial row are 2 x columns apart: each is summed as every second row of one array.
  const auto finish = [&](const TensorView& to, int which) {
    if (!to) return;
    ColumnSumParams c;
    c.x = {p.partials, DType::f32}, c.out = operand(to), c.partials = nullptr;
    c.rows = chunks, c.columns = p.columns, c.row_stride = 2 * std::int64_t(p.columns),
    c.offset = std::int64_t(which) * p.columns;
    c.accumulate = a.accumulate_params;
    launch("layer_norm_bwd finish", column_sum_kernel(), dim3(unsigned((p.columns + kColumns - 1) / kColumns)),
           dim3(kColumns, kRowLanes), 0, s, c);
  };
  finish(a.dgamma, 0);
  finish(a.dbeta, 1);
}

}  // namespace eg::EVERGRAD_BACKEND
