// optim/registry.h - adds a method of one's own to the table of methods, from a program that links evergrad or from a
// plugin (optim/plugin.h). What it must do stands in optim/optimizer.h and optim/plasticity/intervention.h.
//
//   class Relax final : public eg::Intervention { public: Relax(const eg::MethodSpec&, const eg::Parameters&); ... };
//   eg::register_method<Relax>({.name = "relax", .summary = "...", .paper = "...", .options = "rate=1e-3"});
//
// From then on "relax:rate=0.01" is a method like any other, for make_optimizer and for --methods.
#pragma once
#include <concepts>
#include <memory>
#include <utility>

#include "optim/optimizer.h"
#include "optim/plasticity/intervention.h"

namespace eg {

using MakeOptimizer = std::unique_ptr<Optimizer> (*)(const MethodSpec&, const Parameters&, double lr,
                                                     double weight_decay);

namespace detail {
/// One of the two functions is null. Throws Error{usage} as register_method does.
void add_method(MethodInfo info, MakeOptimizer make, MakeIntervention make_beside);
}  // namespace detail

/// Adds T under info.name. An Intervention is made as T(spec, parameters), an Optimizer as T(spec, parameters, lr,
/// weight_decay); info.intervention is filled in. Throws Error{usage} when the name is taken, or is not made of lower-case
/// letters, digits and hyphens with a letter first. Call it before anything trains: the table has no lock.
template <class T>
requires std::derived_from<T, Optimizer> || std::derived_from<T, Intervention>
void register_method(MethodInfo info) {
  if constexpr (std::derived_from<T, Intervention>) {
    const auto make = [](const MethodSpec& spec, const Parameters& p) -> std::unique_ptr<Intervention> {
      return std::make_unique<T>(spec, p);
    };
    detail::add_method(std::move(info), nullptr, make);
  } else {
    const auto make = [](const MethodSpec& spec, const Parameters& p, double lr,
                         double weight_decay) -> std::unique_ptr<Optimizer> {
      return std::make_unique<T>(spec, p, lr, weight_decay);
    };
    detail::add_method(std::move(info), make, nullptr);
  }
}

}  // namespace eg
