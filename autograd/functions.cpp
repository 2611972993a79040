// autograd/functions.cpp - the differentiable functions: defaults filled in, then one apply.
#include "autograd/functions.h"

#include <cmath>

#include "autograd/apply.h"
#include "autograd/ops/all.h"
#include "engine/memory.h"

namespace eg {

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b) { return apply<ops::Linear>({x, w, b})[0]; }

Tensor linear_gelu(const Tensor& x, const Tensor& w, const Tensor& b, GeluKind kind) {
  return apply<ops::LinearGelu>({x, w, b}, {kind})[0];
}

Tensor mlp(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2, GeluKind kind,
           const UnitSums& sums) {
  return apply<ops::Mlp>({x, w1, b1, w2, b2}, {kind, sums})[0];
}

Tensor gelu(const Tensor& x, GeluKind kind) { return apply<ops::Gelu>({x}, {kind})[0]; }

Tensor crelu(const Tensor& x) { return apply<ops::Crelu>({x})[0]; }

Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps) {
  return apply<ops::LayerNorm>({x, gamma, beta}, {eps})[0];
}

std::pair<Tensor, Tensor> residual_layer_norm(const Tensor& x, const Tensor& residual, const Tensor& gamma,
                                              const Tensor& beta, double eps) {
  auto out = apply<ops::ResidualLayerNorm>({x, residual, gamma, beta}, {eps});
  return {std::move(out[0]), std::move(out[1])};
}

Tensor add(const Tensor& a, const Tensor& b) { return apply<ops::Add>({a, b})[0]; }

Tensor attention(const Tensor& qkv, int heads, double scale) {
  if (scale == 0.0 && qkv && qkv.rank() == 3 && heads > 0 && qkv.dim(2) >= 3 * std::int64_t(heads))
    scale = 1.0 / std::sqrt(double(qkv.dim(2) / (3 * std::int64_t(heads))));
  return apply<ops::Attention>({qkv}, {heads, scale})[0];
}

Tensor qk_norm(const Tensor& qkv, int heads, const Tensor& gamma_q, const Tensor& beta_q, const Tensor& gamma_k,
               const Tensor& beta_k, double eps) {
  return apply<ops::QkNorm>({qkv, gamma_q, beta_q, gamma_k, beta_k}, {heads, eps})[0];
}

Tensor branch_scale(const Tensor& x, const Tensor& scale, const Tensor& mask) {
  if (x && !scale && !mask) return x;
  return apply<ops::BranchScale>({x, scale, mask})[0];
}

Tensor drop_mask(Device device, std::int64_t batch, double drop_prob, std::string_view layer_name,
                 const StepRecord* step) {
  check(batch >= 0, Kind::usage, [&] { return cat("drop_mask: batch must not be negative, got ", batch); });
  check(drop_prob >= 0 && drop_prob < 1, Kind::usage,
        [&] { return cat("drop_mask: drop_prob must lie in [0, 1), got ", drop_prob); });
  check(step != nullptr, Kind::usage, [] { return std::string("drop_mask: step is null; give the step record"); });
  const Tensor mask = pool(device).empty({batch}, device.statistic());
  const std::uint32_t stream = fnv1a(layer_name, fnv1a("drop_path/"));
  if (batch != 0) EVERGRAD_CALL(device, drop_mask, DropMask{mask.view(), drop_prob, stream, step});
  return mask;
}

Tensor patchify(const Tensor& images, int patch, int size, DType out, const Tensor& mean, const Tensor& stddev,
                const Tensor& crop) {
  return apply<ops::Patchify>({images, mean, stddev, crop}, {patch, size, out})[0];
}

Tensor tokens(const Tensor& patches, const Tensor& prefix, const Tensor& pos) {
  return apply<ops::Tokens>({patches, prefix, pos})[0];
}

Tensor pool_tokens(const Tensor& x, std::int64_t first, std::int64_t count) {
  return apply<ops::PoolTokens>({x}, {first, count})[0];
}

std::pair<Tensor, Tensor> match_prompts(const Tensor& query, const Tensor& keys, std::int64_t select, bool batchwise,
                                        double scale) {
  auto out = apply<ops::MatchPrompts>({query, keys}, {select, batchwise, scale});
  return {std::move(out[0]), std::move(out[1])};
}

Tensor prepend_prompts(const Tensor& x, const Tensor& prompts, const Tensor& chosen) {
  return apply<ops::PrependPrompts>({x, prompts, chosen}, {chosen ? chosen.cols() : 1})[0];
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& soft, const Tensor& class_mask,
                     double smoothing, double divisor, Tensor* correct) {
  if (divisor == 0.0 && logits && logits.rank() > 0) divisor = double(std::max<std::int64_t>(logits.dim(0), 1));
  auto out = apply<ops::CrossEntropyLoss>({logits, labels, soft, class_mask}, {smoothing, divisor});
  if (correct) *correct = out[1];
  return out[0];
}

Tensor mean(const Tensor& x, double scale) { return apply<ops::MeanLoss>({x}, {scale})[0]; }

}  // namespace eg
