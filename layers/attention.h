// layers/attention.h - multi-head self-attention with one fused projection to q, k and v (Vaswani et al. 2017,
// arXiv:1706.03762).
#pragma once
#include <functional>
#include <optional>

#include "layers/layer_norm.h"
#include "layers/linear.h"

namespace eg {

/// Multi-head self-attention of one block: one fused projection in, one out.
struct Attention {
  Linear qkv;                          // C -> 3C; rows are q, k, v thirds, heads inside each
  std::optional<Norm> q_norm, k_norm;  // over the head width, both or neither (Dehghani et al. 2023, arXiv:2302.05442)
  Linear proj;                         // C -> C
  int heads = 1;
};

template <class F>
void visit_params(Attention& a, F&& f) {
  visit_params(a.qkv, f);
  if (a.q_norm) visit_params(*a.q_norm, f), visit_params(*a.k_norm, f);
  visit_params(a.proj, f);
}

/// The mixing of tokens, before the output projection: x [B,N,C] (already normalised) -> [B,N,C]. `see`, which may be
/// empty, gets the packed [B,N,3C] of queries, keys and values.
inline Tensor mix_tokens(const Attention& a, const Tensor& x, double eps,
                         const std::function<void(const Tensor&)>& see = {}) {
  Tensor qkv = forward(a.qkv, x);
  if (a.q_norm)
    qkv = qk_norm(qkv, a.heads, a.q_norm->weight.value, a.q_norm->bias.value, a.k_norm->weight.value,
                  a.k_norm->bias.value, eps);
  if (see) see(qkv);
  return attention(qkv, a.heads);
}

inline Attention make_attention(const std::string& name, int dim, int heads, bool with_qk_norm, int block) {
  Attention a;
  a.heads = heads;
  a.qkv = make_linear(name + ".qkv", 3 * std::int64_t(dim), dim, Module::qkv, block);
  if (with_qk_norm) {
    a.q_norm = make_norm(name + ".q_norm", dim / heads, Module::qk_norm, block);
    a.k_norm = make_norm(name + ".k_norm", dim / heads, Module::qk_norm, block);
  }
  a.proj = make_linear(name + ".proj", dim, dim, Module::proj, block);
  return a;
}

}  // namespace eg
