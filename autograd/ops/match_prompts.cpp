// autograd/ops/match_prompts.cpp - queries, keys and the choice between them.
#include "autograd/ops/match_prompts.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void MatchPrompts::check(const In& in, const Attrs& attrs) {
  const auto& [query, keys] = in;
  require_activation(name, "query", query);
  require_rank(name, "query", query, 2, 2);
  eg::check(query.dim(0) > 0 && query.dim(1) > 0, Kind::shape,
            [&, &q = query] { return cat(name, ": query must hold at least one image and one channel, got ", q); });
  require_like(name, "keys", keys, query);
  require_rank(name, "keys", keys, 2, 2);
  require_shape(name, "keys", keys, {keys.dim(0), query.dim(1)}, "as wide as query");
  eg::check(attrs.select >= 1 && attrs.select <= keys.dim(0), Kind::usage, [&, &k = keys] {
    return cat(name, ": select ", attrs.select, " must lie between 1 and the number of keys, ", k.dim(0));
  });
}

MatchPrompts::Out MatchPrompts::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [query, keys] = in;
  const std::int64_t batch = query.dim(0), prompts = keys.dim(0);
  const DType stat = query.device().statistic();
  const Tensor term = result(query, {1}, stat), match = result(query, {batch}, stat);
  const Saved made{query,
                   keys,
                   result(query, {batch}, stat),
                   result(query, {prompts}, stat),
                   result(query, {batch, prompts}, stat),
                   result(query, {batch, attrs.select}, DType::i32)};
  EVERGRAD_CALL(query.device(), prompt_match_fwd,
                PromptMatchFwd{query.view(), keys.view(), made.query_scale.view(), made.key_scale.view(),
                               made.cosine.view(), made.chosen.view(), match.view(), attrs.batchwise});
  EVERGRAD_CALL(query.device(), mean, eg::Mean{match.view(), term.view(), attrs.scale * double(batch)});
  if (saved) *saved = made;
  return {term, made.chosen};
}

void MatchPrompts::backward(const Out& dy, const Saved& saved, const Attrs& attrs,
                            const std::array<Destination, arity>& to) {
  if (!to[1].wanted) return;
  EVERGRAD_CALL(dy[0].device(), prompt_match_bwd,
                PromptMatchBwd{saved.query.view(), saved.keys.view(), saved.query_scale.view(), saved.key_scale.view(),
                               saved.cosine.view(), saved.chosen.view(), dy[0].view(), to[1].view, attrs.scale,
                               to[1].accumulate});
}

}  // namespace eg::ops
