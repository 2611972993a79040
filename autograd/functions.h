// autograd/functions.h - the differentiable functions a ViT needs, one line each; the cards behind them stand in ops/.
// Shape letters: B batch, N tokens, C channels, H heads, D head width, P patch, K classes.
// All throw Error{shape}, Error{dtype} or Error{device} when arguments do not fit together, naming them.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>

#include "engine/kernels.h"
#include "engine/tensor.h"
#include "engine/unit_sums.h"

namespace eg {

/// y = x w^T + b: x [...,I], w [O,I], b [O] or empty -> [...,O].
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b);
/// gelu(x w^T + b) with the activation fused into the product: x [...,I] -> [...,O].
Tensor linear_gelu(const Tensor& x, const Tensor& w, const Tensor& b, GeluKind kind = GeluKind::erf);
/// linear(gelu(linear(x, w1, b1)), w2, b2) as one op: the block's two-layer perceptron. The gelu runs inside the first
/// product, its derivative and the gradient of b1 inside the product that makes the hidden gradient.
/// x [...,I], w1 [F,I], b1 [F], w2 [O,F], b2 [O] or empty -> [...,O]. `sums` are added to once per
/// pass that is recorded on a tape.
Tensor mlp(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
           GeluKind kind = GeluKind::erf, const UnitSums& sums = {});
/// gelu(x), elementwise.
Tensor gelu(const Tensor& x, GeluKind kind = GeluKind::erf);
/// {max(x, 0), max(-x, 0)} side by side: x [...,F] -> [...,2F].
Tensor crelu(const Tensor& x);

/// Normalises the last axis: x [...,C], gamma [C], beta [C].
Tensor layer_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, double eps = 1e-6);
/// {sum, layer_norm(sum)} with sum = x + residual, in one pass over memory.
std::pair<Tensor, Tensor> residual_layer_norm(const Tensor& x, const Tensor& residual, const Tensor& gamma,
                                              const Tensor& beta, double eps = 1e-6);
/// a + b of equal shape.
Tensor add(const Tensor& a, const Tensor& b);

/// Multi-head self-attention core on packed projections: qkv [B,N,3 H D] -> [B,N,H D]; scale defaults to D^-1/2.
Tensor attention(const Tensor& qkv, int heads, double scale = 0.0);
/// Layer norm of q and k per head inside packed qkv [B,N,3 H D]; gammas and betas [D].
Tensor qk_norm(const Tensor& qkv, int heads, const Tensor& gamma_q, const Tensor& beta_q, const Tensor& gamma_k,
               const Tensor& beta_k, double eps = 1e-6);

/// x * scale[c] * mask[b]; scale (layer scale, [C]) or mask (stochastic depth, statistic dtype [B]) may be empty.
Tensor branch_scale(const Tensor& x, const Tensor& scale, const Tensor& mask);
/// The stochastic-depth mask of `batch` samples: 0 with probability drop_prob, else 1/(1-drop_prob). `step` is the
/// device-side record (counter and first sample); not differentiable.
Tensor drop_mask(Device device, std::int64_t batch, double drop_prob, std::string_view layer_name,
                 const StepRecord* step);

/// images [B,C,S,S'] u8 or float -> [B,n,C P P] of dtype `out`; mean and stddev [C] and crop i32 [B,3] may be empty.
Tensor patchify(const Tensor& images, int patch, int size, DType out, const Tensor& mean, const Tensor& stddev,
                const Tensor& crop);
/// concat(prefix, patches) + pos: [B,n,C] -> [B,p+n,C].
Tensor tokens(const Tensor& patches, const Tensor& prefix, const Tensor& pos);
/// One token, or the mean of several: x [B,N,C] -> [B,C].
Tensor pool_tokens(const Tensor& x, std::int64_t first, std::int64_t count);

/// {term, chosen} of a prompt pool: chosen i32 [B,select] holds, by cosine, the keys [M,C] nearest to each query [B,C] (or,
/// batchwise, those nearest to most of them, for all), and term, statistic dtype [1], is `scale` times the sum over images
/// of the cosines with their chosen keys. Gradient reaches the keys alone.
std::pair<Tensor, Tensor> match_prompts(const Tensor& query, const Tensor& keys, std::int64_t select, bool batchwise,
                                        double scale);
/// The chosen prompts in front of the tokens: x [B,N,C], prompts [M,L,C], chosen i32 [B,S] -> [B,S L + N,C].
Tensor prepend_prompts(const Tensor& x, const Tensor& prompts, const Tensor& chosen);

/// Mean softmax cross-entropy over the batch -> statistic dtype [1]. Exactly one of labels (i32 [B]) and soft
/// (statistic dtype [B,K]) is given. `divisor` is what the sum is divided by; 0 means B (set it to the global batch
/// when the batch is split). correct, if not null, receives i32 [B]: 1 where the prediction is right.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& soft, const Tensor& class_mask,
                     double smoothing = 0.0, double divisor = 0.0, Tensor* correct = nullptr);
/// scale * mean of all elements -> statistic dtype [1].
Tensor mean(const Tensor& x, double scale = 1.0);

}  // namespace eg
