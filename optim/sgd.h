// optim/sgd.h - stochastic gradient descent with momentum, PyTorch's semantics (methods.md A.1).
#pragma once
#include <memory>

#include "optim/optimizer.h"

namespace eg {

extern const char* const kSgdOptionsText;
/// Throws Error{usage} for unknown or out-of-range options.
std::unique_ptr<Optimizer> make_sgd(const MethodSpec& spec, const Parameters& parameters, double lr,
                                    double weight_decay);

}  // namespace eg
