// layers/layer_norm.h - layer norm with a learned gain and offset (Ba, Kiros, Hinton 2016, arXiv:1607.06450).
#pragma once
#include "autograd/functions.h"
#include "layers/param.h"

namespace eg {

/// Gain and offset of a layer norm.
struct Norm {
  Param weight, bias;  // gamma [C], beta [C]
};

template <class F>
void visit_params(Norm& n, F&& f) {
  f(n.weight), f(n.bias);
}

/// x [...,C] -> [...,C].
inline Tensor forward(const Norm& n, const Tensor& x, double eps) {
  return layer_norm(x, n.weight.value, n.bias.value, eps);
}
/// {sum, norm(sum)} with sum = x + residual.
inline std::pair<Tensor, Tensor> forward(const Norm& n, const Tensor& x, const Tensor& residual, double eps) {
  return residual_layer_norm(x, residual, n.weight.value, n.bias.value, eps);
}

/// "<name>.weight", ones, and "<name>.bias", zeros; neither decays.
inline Norm make_norm(const std::string& name, std::int64_t width, Module module, int block) {
  const auto param = [&](const char* suffix, Init::Rule rule) {
    return Param{.name = name + suffix,
                 .role = Role::norm,
                 .module = module,
                 .shape = {width},
                 .init = {rule, 0.0},
                 .fan_in = width,
                 .block = block};
  };
  return {param(".weight", Init::Rule::ones), param(".bias", Init::Rule::zeros)};
}

}  // namespace eg
