// autograd/ops/tokens.cpp - class token, register tokens and positions.
#include "autograd/ops/tokens.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

void Tokens::check(const In& in, const Attrs&) {
  const auto& [patches, prefix, pos] = in;
  require_activation(name, "patches", patches);
  require_rank(name, "patches", patches, 3, 3);
  const std::int64_t n = patches.dim(1), channels = patches.dim(2);
  if (prefix) {
    require_like(name, "prefix", prefix, patches);
    require_rank(name, "prefix", prefix, 1);
    eg::check(prefix.dim(-1) == channels, Kind::shape, [&, &p = prefix, &t = patches] {
      return cat(name, ": prefix ends in ", p.dim(-1), " but patches end in ", t.dim(-1), "; prefix is ", p,
                 ", patches are ", t);
    });
  }
  if (pos) {
    require_like(name, "pos", pos, patches);
    require_rank(name, "pos", pos, 2);
    const std::int64_t p = prefix ? prefix.rows() : 0;
    eg::check(pos.dim(-1) == channels && (pos.rows() == n || pos.rows() == p + n), Kind::shape, [&, &e = pos] {
      return cat(name, ": pos must hold ", p + n, " rows (all tokens) or ", n, " rows (patches only) of ", channels,
                 " channels, got ", e);
    });
  }
}

Tokens::Out Tokens::forward(const In& in, const Attrs&, Saved* saved) {
  const auto& [patches, prefix, pos] = in;
  const std::int64_t p = prefix ? prefix.rows() : 0;
  const Tensor out = result(patches, {patches.dim(0), p + patches.dim(1), patches.dim(2)});
  if (out.size() != 0) {
    TokensFwd a{.patches = patches.view(), .out = out.view()};
    if (prefix) a.prefix = matrix(prefix);
    if (pos) a.pos = matrix(pos);
    EVERGRAD_CALL(out.device(), tokens_fwd, a);
  }
  if (saved) *saved = {prefix ? prefix.shape() : Shape{}, pos ? pos.shape() : Shape{}};
  return {out};
}

void Tokens::backward(const Out& dy, const Saved&, const Attrs&, const std::array<Destination, arity>& to) {
  TokensBwd a{.dout = dy[0].view(), .dpatches = wanted_view(to[0])};
  if (to[1].wanted) a.dprefix = matrix(to[1].view);
  if (to[2].wanted) a.dpos = matrix(to[2].view);
  a.accumulate = to[0].accumulate;
  a.accumulate_prefix = to[1].accumulate;
  a.accumulate_pos = to[2].accumulate;
  EVERGRAD_CALL(dy[0].device(), tokens_bwd, a);
}

}  // namespace eg::ops
