// layers/mlp.h - the two-layer perceptron of a block: C -> hidden -> C with a GELU between, or C -> hidden -> 2 hidden -> C
// with CReLU.
#pragma once
#include "layers/linear.h"
#include "layers/vit_config.h"

namespace eg {

/// The parameters of a block's perceptron, and its activation.
struct Mlp {
  Linear fc1, fc2;
  Activation activation = Activation::gelu;
  GeluKind gelu = GeluKind::erf;
};

template <class F>
void visit_params(Mlp& m, F&& f) {
  visit_params(m.fc1, f), visit_params(m.fc2, f);
}

/// x [...,C] (already normalised) -> [...,C].
inline Tensor forward(const Mlp& m, const Tensor& x) {
  if (m.activation == Activation::crelu) return forward(m.fc2, crelu(forward(m.fc1, x)));
  return mlp(x, m.fc1.weight.value, m.fc1.bias.value, m.fc2.weight.value, m.fc2.bias.value, m.gelu, m.fc1.weight.sums);
}
/// The same in three steps, for somebody who wants to see the pre-activations [...,hidden].
template <class See>
Tensor forward(const Mlp& m, const Tensor& x, const See& see) {
  const Tensor z = forward(m.fc1, x);
  see(z);
  return forward(m.fc2, m.activation == Activation::crelu ? crelu(z) : gelu(z, m.gelu));
}

/// Parameters "<name>.fc1...." and "<name>.fc2....", sized as the configuration says.
inline Mlp make_mlp(const std::string& name, const VitConfig& c, int block) {
  return {make_linear(name + ".fc1", c.hidden(), c.dim, Module::fc1, block),
          make_linear(name + ".fc2", c.dim, c.hidden_outputs(), Module::fc2, block), c.activation, c.gelu};
}

}  // namespace eg
