// cuda/kernels/qk_norm.cpp - host entries of qk_norm.cu.
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
  return p;
}
unsigned vector_blocks(const QkNormParams& p) {
  return unsigned((p.tokens * 3 * p.heads + kNormWarps - 1) / kNormWarps);
}

}  // namespace

void qk_norm_fwd(const QkNormFwd& a, Stream s) {
  QkNormParams p = params_of(a.qkv, a.mean, a.rstd);
  p.gamma_q = operand(a.gamma_q), p.beta_q = operand(a.beta_q), p.gamma_k = operand(a.gamma_k),
  p.beta_k = operand(a.beta_k);
  p.out = operand(a.out), p.eps = float(a.eps);
  launch("qk_norm_fwd", qk_norm_fwd_kernel(), dim3(vector_blocks(p)), dim3(kNormWarps * kWarp), 0, s, p);
}

void qk_norm_bwd(const QkNormBwd& a, Stream s) {
  QkNormParams p = params_of(a.qkv, a.mean, a.rstd);
  p.gamma_q = operand(a.gamma_q), p.gamma_k = operand(a.gamma_k), p.dout = operand(a.dout), p.out = operand(a.dqkv);
  p.accumulate = a.accumulate;
  if (a.dgamma_q || a.dbeta_q || a.dgamma_k || a.dbeta_k) {  // before dqkv, which may overwrite dout
    const std::int64_t chunks = max_of<std::int64_t>(1, min_of<std::int64_t>(p.tokens * p.heads / 256, 64));
    p.partials = static_cast<float*>(scratch(s, std::size_t(chunks * 4 * p.width) * sizeof(float)).data);
    const unsigned tiles = unsigned((p.width + kColumns - 1) / kColumns);
    launch("qk_norm_bwd columns", qk_norm_columns_kernel(), dim3(tiles, unsigned(chunks), 2), dim3(kColumns, kRowLanes),
           0, s, p);
    const TensorView* const outputs[] = {&a.dgamma_q, &a.dbeta_q, &a.dgamma_k, &a.dbeta_k};
    for (int i = 0; i < 4; ++i) {
      if (!*outputs[i]) continue;
      ColumnSumParams c;
      c.x = {p.partials, DType::f32}, c.out = operand(*outputs[i]), c.partials = nullptr;
      c.rows = chunks, c.columns = p.width, c.row_stride = 4 * std::int64_t(p.width),
      c.offset = std::int64_t(i) * p.width;
      c.accumulate = a.accumulate_params;
      launch("qk_norm_bwd finish", column_sum_kernel(), dim3(tiles), dim3(kColumns, kRowLanes), 0, s, c);
    }
  }
  launch("qk_norm_bwd", qk_norm_bwd_kernel(), dim3(vector_blocks(p)), dim3(kNormWarps * kWarp), 0, s, p);
}

}  // namespace eg::EVERGRAD_BACKEND
