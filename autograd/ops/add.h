// autograd/ops/add.h - a + b. Both gradients are the incoming one, which the tape shares.
// Shapes   a, b [...] -> [...].
#pragma once
#include <array>
#include <string_view>

#include "autograd/op.h"
#include "engine/kernels.h"

namespace eg::ops {

struct Add {
  static constexpr std::string_view name = "add";
  static constexpr std::size_t arity = 2, results = 1;
  static constexpr std::array<SameAs, arity> same_as{SameAs{.output = 0}, SameAs{.output = 0}};
  using In = std::array<Tensor, arity>;
  using Out = std::array<Tensor, results>;
  struct Attrs {};
  struct Saved {};
  static void check(const In& in, const Attrs& attrs);
  static Out forward(const In& in, const Attrs& attrs, Saved* saved);
  static void backward(const Out& dy, const Saved& saved, const Attrs& attrs, const std::array<Destination, arity>& to);
};
static_assert(Op<Add>);

}  // namespace eg::ops
