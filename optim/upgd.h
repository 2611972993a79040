// optim/upgd.h - utility-based perturbed gradient descent (Elsayed & Mahmood 2024, arXiv:2404.00781; methods.md A.7).
#pragma once
#include <memory>

#include "optim/optimizer.h"

namespace eg {

extern const char* const kUpgdOptionsText;
/// Throws Error{usage} for unknown or out-of-range options.
std::unique_ptr<Optimizer> make_upgd(const MethodSpec& spec, const Parameters& parameters, double lr,
                                     double weight_decay);

}  // namespace eg
