// layers/mlp.h - the two-layer perceptron of a block: C -> hidden -> C with a GELU between.
#pragma once
#include "layers/linear.h"

namespace eg {

struct Mlp {
  Linear fc1, fc2;
  GeluKind gelu = GeluKind::erf;
};

template <class F>
void visit_params(Mlp& m, F&& f) {
  visit_params(m.fc1, f), visit_params(m.fc2, f);
}

/// x [...,C] (already normalised) -> [...,C].
inline Tensor forward(const Mlp& m, const Tensor& x) {
  return mlp(x, m.fc1.weight.value, m.fc1.bias.value, m.fc2.weight.value, m.fc2.bias.value, m.gelu, m.fc1.weight.sums);
}
/// The same in three steps, for somebody who wants to see the pre-activations [...,hidden].
template <class See>
Tensor forward(const Mlp& m, const Tensor& x, const See& see) {
  const Tensor z = forward(m.fc1, x);
  see(z);
  return forward(m.fc2, gelu(z, m.gelu));
}

inline Mlp make_mlp(const std::string& name, std::int64_t dim, std::int64_t hidden, GeluKind kind, int block) {
  return {make_linear(name + ".fc1", hidden, dim, Module::fc1, block),
          make_linear(name + ".fc2", dim, hidden, Module::fc2, block), kind};
}

}  // namespace eg
