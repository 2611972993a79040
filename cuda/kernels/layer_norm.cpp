// cuda/kernels/layer_norm.cpp - host entries of layer_norm.cu and layer_norm_any.cu.
#include "cuda/kernels/layer_norm.h"

#include "cuda/kernels/kernels.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

/// In registers where all arrays have one type and can be read wide; else the kernels that take anything.
NormLayout layout_of(std::int64_t columns, std::initializer_list<const TensorView*> views) {
  NormLayout layout{(*views.begin())->dtype, 0, columns > kNormNarrow};
  bool one_type = wide_access(views) && columns % kPack == 0;
  for (const TensorView* v : views) one_type &= !*v || v->dtype == layout.type;
  const std::int64_t lanes = layout.block_per_row ? kNormWide : kWarp;
  const std::int64_t packs = max_of<std::int64_t>(1, ceil_div(columns, lanes * kPack));
  if (one_type && packs <= (layout.block_per_row ? 1 : kNormMaxPacks)) layout.packs = int(packs);
  return layout;
}
int lanes_of(const NormLayout& layout) { return layout.block_per_row ? kNormWide : kWarp; }
/// Blocks that give each row its threads.
unsigned row_blocks(const NormLayout& layout, std::int64_t rows) {
  const int lanes = lanes_of(layout);
  return unsigned(ceil_div<std::int64_t>(rows, norm_threads(lanes) / lanes));
}
dim3 block_of(const NormLayout& layout) { return dim3(unsigned(norm_threads(lanes_of(layout)))); }

}  // namespace

void layer_norm_fwd(const LayerNormFwd& a, Stream s) {
  LayerNormFwdParams p;
  p.x = operand(a.x), p.residual = operand(a.residual), p.sum = operand(a.sum);
  p.gamma = operand(a.gamma), p.beta = operand(a.beta), p.y = operand(a.y);
  p.mean = a.mean.as<float>(), p.rstd = a.rstd.as<float>(), p.rows = a.x.rows(), p.columns = int(a.x.cols()),
  p.eps = float(a.eps);
  const NormLayout layout = layout_of(p.columns, {&a.x, &a.residual, &a.sum, &a.gamma, &a.beta, &a.y});
  launch("layer_norm_fwd", layer_norm_fwd_kernel(layout), dim3(row_blocks(layout, p.rows)), block_of(layout), 0, s, p);
}

void layer_norm_bwd(const LayerNormBwd& a, Stream s) {
  LayerNormBwdParams p;
  p.dy = operand(a.dy), p.dsum = operand(a.dsum), p.x = operand(a.x), p.gamma = operand(a.gamma), p.dx = operand(a.dx);
  p.mean = a.mean.as<float>(), p.rstd = a.rstd.as<float>(), p.partials = nullptr;
  p.rows = a.x.rows(), p.columns = int(a.x.cols()), p.accumulate = a.accumulate;
  const NormLayout layout = layout_of(p.columns, {&a.dy, &a.dsum, &a.x, &a.gamma, &a.dx});
  const bool params = a.dgamma || a.dbeta;
  unsigned blocks = row_blocks(layout, p.rows);
  std::int64_t chunks = chunks_of(p.rows, p.columns, false);
  if (layout.packs > 0) {
    const int at_once = norm_blocks_at_once(layout.type == DType::bf16, layout.packs, layout.block_per_row);
    chunks = blocks = min_of<unsigned>(blocks, unsigned(kNormProcessors * at_once));
  }
  if (params) p.partials = static_cast<float*>(scratch(s, std::size_t(chunks * 2 * p.columns) * sizeof(float)).data);
  if (params && layout.packs == 0 && p.columns > 0)  // before dx, which may overwrite dy
    launch("layer_norm_bwd columns", layer_norm_columns_kernel(),
           dim3(unsigned(ceil_div(p.columns, kColumns)), unsigned(chunks)), dim3(kColumns, kRowLanes), 0, s, p);
  launch("layer_norm_bwd", layer_norm_bwd_kernel(layout), dim3(blocks), block_of(layout), 0, s, p);
  if (!params) return;
  FinishParams f = {};
  f.partials = p.partials, f.out[0] = operand(a.dgamma), f.out[1] = operand(a.dbeta);
  f.chunks = chunks, f.columns = p.columns, f.sections = 2, f.accumulate = a.accumulate_params;
  finish_sections(f, s);
}

}  // namespace eg::EVERGRAD_BACKEND
