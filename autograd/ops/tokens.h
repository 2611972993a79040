// autograd/ops/tokens.h - concat(prefix, patches) + pos: class and register tokens in front, learned positions on all
// tokens or on patches only. Shapes   patches [B,n,C], prefix [p,C] or empty, pos [p+n,C] or [n,C] or empty ->
// [B,p+n,C]. prefix and pos may carry
//          leading axes of extent 1.
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Tokens {
  static constexpr std::string_view name = "tokens";
  static constexpr std::size_t arity = 3, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {};
  struct Saved {
    Shape prefix, pos;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Tokens>);

}  // namespace eg::ops
