// autograd/ops/pool_tokens.h - One token of every image, or the mean of a range of tokens.
// Shapes   x [B,N,C] -> [B,C].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct PoolTokens {
  static constexpr std::string_view name = "pool_tokens";
  static constexpr std::size_t arity = 1, results = 1;
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {
    std::int64_t first = 0, count = 1;
  };
  struct Saved {
    Shape x;
  };
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<PoolTokens>);

}  // namespace eg::ops
