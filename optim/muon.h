// optim/muon.h - Muon: momentum whose direction is made almost orthogonal (Jordan et al. 2024; methods.md A.5).
#pragma once
#include <memory>

#include "optim/optimizer.h"

namespace eg {

extern const char* const kMuonOptionsText;
/// Throws Error{usage} for unknown or out-of-range options.
std::unique_ptr<Optimizer> make_muon(const MethodSpec& spec, const Parameters& parameters, double lr,
                                     double weight_decay);

}  // namespace eg
