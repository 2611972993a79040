// layers/linear.h - y = x W^T + b. A layer is its parameters; what it does is a function.
#pragma once
#include "autograd/functions.h"
#include "layers/param.h"

namespace eg {

/// The parameters of y = x W^T + b.
struct Linear {
  Param weight, bias;  // [O,I], [O]
};

template <class F>
void visit_params(Linear& l, F&& f) {
  f(l.weight), f(l.bias);
}

/// x [...,I] -> [...,O].
inline Tensor forward(const Linear& l, const Tensor& x) { return linear(x, l.weight.value, l.bias.value); }

/// Parameters "<name>.weight" (decays) and "<name>.bias", initialised as layers/init.h says. `block` is the index of
/// the transformer block, -1 outside.
Linear make_linear(const std::string& name, std::int64_t out, std::int64_t in, Module module, int block);

}  // namespace eg
