// optim/registry.cpp - every update rule by name. A new one adds a line to kMethods.
#include <algorithm>

#include "optim/adam.h"
#include "optim/arrow.h"
#include "optim/arrow_options.h"
#include "optim/optimizer.h"
#include "optim/sgd.h"

namespace eg {
namespace {

using Make = std::unique_ptr<Optimizer> (*)(const MethodSpec&, const Parameters&, double lr, double weight_decay);
struct Method {
  MethodInfo info;
  Make make;
};

// name, summary, paper, default lr, default weight decay, options
const std::vector<Method>& methods() {
  static const std::vector<Method> all = {
      {{"adamw", "Adam with decoupled weight decay: per-weight rates from running gradient moments. The baseline.",
        "Loshchilov & Hutter 2019, arXiv:1711.05101", 1e-3, 0.05, kAdamOptionsText},
       make_adam},
      {{"adam", "Adam; weight decay, if any, is added to the gradient.", "Kingma & Ba 2015, arXiv:1412.6980", 1e-3, 0.0,
        kAdamOptionsText},
       make_adam},
      {{"sgd", "Stochastic gradient descent with momentum.",
        "Robbins & Monro 1951; Sutskever et al. 2013; semantics of PyTorch's SGD", 0.1, 5e-4, kSgdOptionsText},
       make_sgd},
      {{"arrow",
        "Reshapes the attention gradient's direction by the covariance of the last W gradients; AdamW elsewhere.",
        "Vision Transformers that Never Stop Learning, arXiv:2603.07787", 1e-3, 0.05, kArrowOptionsText},
       make_arrow},
      {{"norm-control",
        "The control for ARROW: its base optimizer's direction with the length of ARROW's own, ungrafted step.",
        "the norm-matched baseline for arXiv:2603.07787", 1e-3, 0.05,
        "those of arrow, without graft and momentum; arrow-lr=0.1"},
       make_arrow},
  };
  return all;
}

const Method& method_named(const std::string& name) {
  std::string known;
  for (const Method& m : methods()) {
    if (m.info.name == name) return m;
    known += cat(known.empty() ? "" : ", ", m.info.name);
  }
  fail(Kind::usage, cat("there is no method '", name, "'; known: ", known));
}

/// Whose default rate and decay a method has: those of the optimizer that runs beside ARROW.
const Method& defaults_of(const Method& m, const MethodSpec& spec) {
  const auto base = spec.options.find("base");
  return base != spec.options.end() && base->second == "sgd" ? method_named("sgd") : m;
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

MethodSpec parse_method(std::string_view text) {
  MethodSpec spec;
  std::string* last = nullptr;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find_first_of(":,", begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const std::size_t equals = part.find('=');
    check(!part.empty() && equals != 0, Kind::usage, [&] {
      return cat("method '", text, "': '", part,
                 "' is not an option; write name:key=value:key=value, for example arrow:window=16");
    });
    if (begin == 0) {
      check(equals == std::string_view::npos, Kind::usage,
            [&] { return cat("method '", text, "' begins with an option; write the method's name first"); });
      spec.name = part;
    } else if (last && all_digits(part)) {
      *last += cat(text[begin - 1] == ':' ? '-' : '+', part);  // blocks=last:4 and blocks=0,3: the value goes on
    } else {
      const std::string key(part.substr(0, equals));
      check(!spec.options.contains(key), Kind::usage,
            [&] { return cat("method '", text, "' gives '", key, "' twice"); });
      last = &(spec.options[key] =
                   equals == std::string_view::npos ? std::string() : std::string(part.substr(equals + 1)));
    }
    begin = end + 1;
  }
  method_named(spec.name);
  return spec;
}

std::unique_ptr<Optimizer> make_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                          double weight_decay) {
  const Method& m = method_named(spec.name);
  const MethodInfo& defaults = defaults_of(m, spec).info;
  return m.make(spec, parameters, lr < 0.0 ? defaults.default_lr : lr,
                weight_decay < 0.0 ? defaults.default_weight_decay : weight_decay);
}

const std::vector<MethodInfo>& method_list() {
  static const std::vector<MethodInfo> list = [] {
    std::vector<MethodInfo> infos;
    for (const Method& m : methods()) infos.push_back(m.info);
    return infos;
  }();
  return list;
}

}  // namespace eg
