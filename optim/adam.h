// optim/adam.h - Adam (Kingma & Ba 2015, arXiv:1412.6980) and AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101);
// methods.md A.2.
#pragma once
#include <memory>

#include "optim/optimizer.h"

namespace eg {

extern const char* const kAdamOptionsText;
/// `spec.name` "adam" adds the decay to the gradient, "adamw" shrinks the weights by it. Throws Error{usage}.
std::unique_ptr<Optimizer> make_adam(const MethodSpec& spec, const Parameters& parameters, double lr,
                                     double weight_decay);

}  // namespace eg
