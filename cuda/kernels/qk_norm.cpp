// cuda/kernels/qk_norm.cpp - host entries of qk_norm.cu and qk_norm_any.cu.
#include "cuda/kernels/kernels.h"
#include "cuda/kernels/layer_norm.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/launch.h"
#include "cuda/scratch.h"

namespace eg::EVERGRAD_BACKEND {
namespace {

QkNormParams params_of(const TensorView& qkv, const TensorView& mean, const TensorView& rstd) {
  QkNormParams p;
  p.qkv = operand(qkv), p.gamma_q = p.beta_q = p.gamma_k = p.beta_k = p.out = p.dout = operand({});
  p.mean = mean.as<float>(), p.rstd = rstd.as<float>(), p.partials = nullptr;
  p.tokens = qkv.dim(0) * qkv.dim(1), p.heads = int(qkv.dim(3)), p.width = int(qkv.dim(4)), p.eps = 0.0f,
  p.accumulate = false;
  for (p.lanes = 1; p.lanes * kPack < p.width && p.lanes < kWarp; p.lanes *= 2) continue;
  return p;
}

/// True where vectors stay in registers: all arrays of one type, wide access, at most a warp per vector.
bool in_registers(const QkNormParams& p, std::initializer_list<const TensorView*> views) {
  bool one_type = wide_access(views) && p.width > 0 && p.width % kPack == 0 && p.width <= kWarp * kPack;
  for (const TensorView* v : views) one_type &= !*v || v->dtype == (*views.begin())->dtype;
  return one_type;
}
/// Blocks that give every vector of one part its threads.
std::int64_t blocks_of(const QkNormParams& p) {
  return ceil_div<std::int64_t>(p.tokens * p.heads, kQkThreads / p.lanes);
}
/// The same with a warp per vector, over q, k and v.
unsigned any_blocks(const QkNormParams& p) {
  return unsigned(ceil_div<std::int64_t>(p.tokens * 3 * p.heads, kNormWarps));
}

void finish(const QkNormBwd& a, const QkNormParams& p, std::int64_t chunks, Stream s) {
  FinishParams f = {};
  f.partials = p.partials, f.chunks = chunks, f.columns = p.width, f.sections = 4, f.accumulate = a.accumulate_params;
  f.out[0] = operand(a.dgamma_q), f.out[1] = operand(a.dbeta_q);
  f.out[2] = operand(a.dgamma_k), f.out[3] = operand(a.dbeta_k);
  finish_sections(f, s);
}

float* partials_of(const QkNormParams& p, std::int64_t chunks, Stream s) {
  return static_cast<float*>(scratch(s, std::size_t(chunks * 4 * p.width) * sizeof(float)).data);
}

}  // namespace

void qk_norm_fwd(const QkNormFwd& a, Stream s) {
  QkNormParams p = params_of(a.qkv, a.mean, a.rstd);
  p.gamma_q = operand(a.gamma_q), p.beta_q = operand(a.beta_q), p.gamma_k = operand(a.gamma_k),
  p.beta_k = operand(a.beta_k);
  p.out = operand(a.out), p.eps = float(a.eps);
  if (in_registers(p, {&a.qkv, &a.gamma_q, &a.beta_q, &a.gamma_k, &a.beta_k, &a.out}))
    launch("qk_norm_fwd", qk_norm_fwd_kernel(a.qkv.dtype), dim3(unsigned(blocks_of(p)), 3), dim3(kQkThreads), 0, s, p);
  else
    launch("qk_norm_fwd", qk_norm_fwd_any_kernel(), dim3(any_blocks(p)), dim3(kNormWarps * kWarp), 0, s, p);
}

void qk_norm_bwd(const QkNormBwd& a, Stream s) {
  QkNormParams p = params_of(a.qkv, a.mean, a.rstd);
  p.gamma_q = operand(a.gamma_q), p.gamma_k = operand(a.gamma_k), p.dout = operand(a.dout), p.out = operand(a.dqkv);
  p.accumulate = a.accumulate;
  const bool params = a.dgamma_q || a.dbeta_q || a.dgamma_k || a.dbeta_k;
  if (in_registers(p, {&a.qkv, &a.gamma_q, &a.gamma_k, &a.dout, &a.dqkv})) {
    const std::int64_t blocks = min_of<std::int64_t>(blocks_of(p), 2 * kNormProcessors);
    if (params) p.partials = partials_of(p, blocks, s);
    launch("qk_norm_bwd", qk_norm_bwd_kernel(a.qkv.dtype), dim3(unsigned(blocks), 3), dim3(kQkThreads), 0, s, p);
    if (params) finish(a, p, blocks, s);
    return;
  }
  if (params) {  // before dqkv, which may overwrite dout
    const std::int64_t chunks = chunks_of(p.tokens * p.heads, p.width, false);
    p.partials = partials_of(p, chunks, s);
    launch("qk_norm_bwd columns", qk_norm_columns_kernel(),
           dim3(unsigned(ceil_div(p.width, kColumns)), unsigned(chunks), 2), dim3(kColumns, kRowLanes), 0, s, p);
    finish(a, p, chunks, s);
  }
  launch("qk_norm_bwd", qk_norm_bwd_any_kernel(), dim3(any_blocks(p)), dim3(kNormWarps * kWarp), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
