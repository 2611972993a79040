// optim/arrow.h - ARROW, adaptive rank reshaping by online windowed covariance (arXiv:2603.07787; methods.md A.3).
//
// For the attention weights of the chosen blocks the step is (alpha I + beta C)^-1 g, where C is the covariance of the
// last W gradients. Everything else, and the first steps after the window was cleared, belongs to the base optimizer.
#pragma once
#include <memory>

#include "optim/optimizer.h"

namespace eg {

/// Throws Error{usage} as read_arrow_settings does, or when the chosen blocks hold nothing to update.
std::unique_ptr<Optimizer> make_arrow(const MethodSpec& spec, const Parameters& parameters, double lr,
                                      double weight_decay);

}  // namespace eg
