// engine/cpu/attention.cpp - multi-head attention on packed qkv [B,N,3,H,D], and layer norm of q and k inside it.
//
// One work item is one head of one image; its keys, values and a block of its scores stay in L1 and L2, so that memory
// sees qkv once and the result once, and no N x N matrix exists beyond one block of query rows. Backward recomputes the
// probabilities from lse (Dao et al. 2022, arXiv:2205.14135): P = exp(scale q k^T - lse), delta_i = dO_i . O_i,
// dS = scale P (dO V^T - delta), dV = P^T dO, dQ = dS K, dK = dS^T Q. Blocks of query rows add to dK and dV in order.
// All products run in fp32 also for bf16 activations: sequences are short, and P need not be rounded this way.
// Bound by arithmetic: forward 4 N^2 D, backward 10 N^2 D floating-point operations per head.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"

namespace eg::cpu {
namespace {
struct QkNormParams {
  const float *gamma[2], *beta[2];  // of q, of k
};
}  // namespace
}  // namespace eg::cpu

#define EVERGRAD_KERNEL_BODY "engine/cpu/attention.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {

void attention_fwd(const AttentionFwd& a, Stream) { EVERGRAD_DISPATCH(attention_fwd, a); }
void attention_bwd(const AttentionBwd& a, Stream) { EVERGRAD_DISPATCH(attention_bwd, a); }

namespace {
constexpr std::int64_t kTokensPerChunk = 16;

// The parameters as floats; an absent beta is zeros (backward does not need it).
struct Params {
  std::vector<float> gamma[2], beta[2];
  Params(const TensorView& gq, const TensorView& bq, const TensorView& gk, const TensorView& bk)
      : gamma{as_floats(gq), as_floats(gk)}, beta{as_floats(bq), as_floats(bk)} {}
  QkNormParams pointers() const { return {{gamma[0].data(), gamma[1].data()}, {beta[0].data(), beta[1].data()}}; }
};
}  // namespace

void qk_norm_fwd(const QkNormFwd& a, Stream) {
  const Params params(a.gamma_q, a.beta_q, a.gamma_k, a.beta_k);
  parallel_for(a.qkv.dim(0) * a.qkv.dim(1), kTokensPerChunk, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    EVERGRAD_DISPATCH(qk_norm_fwd_range, a, params.pointers(), begin, end);
  });
}

void qk_norm_bwd(const QkNormBwd& a, Stream) {
  const Params params(a.gamma_q, {}, a.gamma_k, {});
  const std::int64_t tokens = a.qkv.dim(0) * a.qkv.dim(1), width = a.qkv.dim(4), stride = 4 * width;
  const std::int64_t grain = rows_per_chunk(tokens, 3 * a.qkv.dim(3) * width), chunks = chunks_of(tokens, grain);
  std::vector<float> partials(std::size_t(std::max<std::int64_t>(1, chunks) * stride));
  parallel_for(tokens, grain, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
    EVERGRAD_DISPATCH(qk_norm_bwd_range, a, params.pointers(), begin, end, partials.data() + chunk * stride);
  });
  for (std::int64_t c = 1; c < chunks; ++c)
    for (std::int64_t i = 0; i < stride; ++i) partials[std::size_t(i)] += partials[std::size_t(c * stride + i)];
  const TensorView* const gradients[] = {&a.dgamma_q, &a.dbeta_q, &a.dgamma_k, &a.dbeta_k};
  for (int g = 0; g < 4; ++g) write_gradient(*gradients[g], partials.data() + g * width, a.accumulate_params);
}

}  // namespace eg::cpu
