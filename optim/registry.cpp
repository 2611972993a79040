// optim/registry.cpp - every method by name. A new one adds a line to built_in; one from outside calls register_method.
#include "optim/registry.h"

#include <algorithm>
#include <deque>

#include "optim/adam.h"
#include "optim/arrow.h"
#include "optim/arrow_options.h"
#include "optim/muon.h"
#include "optim/options_reader.h"
#include "optim/sgd.h"
#include "optim/upgd.h"

namespace eg {
namespace {

struct Method {
  MethodInfo info;
  MakeOptimizer make = nullptr;
  MakeIntervention make_intervention = nullptr;
  ChangeModel change_model = nullptr;
};
/// An intervention's rate and decay are AdamW's, on which it stands when nothing else is named.
Method beside(std::string name, std::string summary, std::string paper, std::string options, MakeIntervention make,
              ChangeModel change = nullptr) {
  return {{std::move(name), std::move(summary), std::move(paper), 1e-3, 0.05, std::move(options), true},
          nullptr,
          make,
          change};
}

/// One that stands on another update rule when none is named, with a rate and decay of its own.
Method standing_on(std::string base, double lr, double weight_decay, Method m) {
  m.info.base = std::move(base), m.info.default_lr = lr, m.info.default_weight_decay = weight_decay;
  return m;
}

// name, summary, paper, default lr, default weight decay, options
std::deque<Method> built_in() {
  return {
      {{"adamw", "Adam with decoupled weight decay: per-weight rates from running gradient moments. The baseline.",
        "Loshchilov & Hutter 2019, arXiv:1711.05101", 1e-3, 0.05, kAdamOptionsText},
       make_adam},
      {{"adam", "Adam; weight decay, if any, is added to the gradient.", "Kingma & Ba 2015, arXiv:1412.6980", 1e-3, 0.0,
        kAdamOptionsText},
       make_adam},
      {{"sgd", "Stochastic gradient descent with momentum.",
        "Robbins & Monro 1951; Sutskever et al. 2013; semantics of PyTorch's SGD", 0.1, 5e-4, kSgdOptionsText},
       make_sgd},
      {{"upgd",
        "Utility-based perturbed gradient descent: holds weights that the loss needs, moves and shakes the others.",
        "Elsayed & Mahmood 2024, arXiv:2404.00781", 0.01, 1e-3, kUpgdOptionsText},
       make_upgd},
      {{"arrow",
        "Reshapes the attention gradient's direction by the covariance of the last W gradients; AdamW elsewhere.",
        "Vision Transformers that Never Stop Learning, arXiv:2603.07787", 1e-3, 0.05, kArrowOptionsText},
       make_arrow},
      {{"norm-control",
        "The control for ARROW: its base optimizer's direction with the length of ARROW's own, ungrafted step.",
        "the norm-matched baseline for arXiv:2603.07787", 1e-3, 0.05,
        "those of arrow, without graft and momentum; arrow-lr=0.1"},
       make_arrow},
      {{"muon",
        "Momentum made almost orthogonal by five Newton-Schulz iterations for hidden matrices; AdamW for the rest.",
        "Jordan et al. 2024, github.com/KellerJordan/Muon; for ViTs arXiv:2605.24770", 0.02, 0.0, kMuonOptionsText},
       make_muon},
      beside("l2", "Adds strength/2 |w|^2 to the loss: weights are pulled to zero through the optimizer.",
             "Krogh & Hertz 1991", "strength=1e-4, biases=false, norms=false", make_l2),
      beside("l2init", "Adds strength/2 |w - w0|^2 to the loss: weights are pulled back to where they began.",
             "Kumar et al. 2023, arXiv:2308.11958", "strength=1e-3, biases=true, norms=false", make_l2_init),
      beside("spectral",
             "Adds strength (sigma^k - 1)^2 to the loss for every matrix, sigma its largest singular value.",
             "Lewandowski et al. 2025, arXiv:2406.06811", "strength=1e-3, k=3, biases=true, norms=true, head=true",
             make_spectral),
      beside("parseval", "Adds strength |W W^T - s I|^2 to the loss: all singular values are pulled to sqrt(s).",
             "Cisse et al. 2017, arXiv:1704.08847", "strength=1e-3, s=1", make_parseval),
      beside("shrink-perturb",
             "Shrinks weights and adds noise. Six published variants: a, b, d, f in every step, c and e between tasks.",
             "Ash & Adams 2020, arXiv:1910.08475; Dohare et al. 2024 (variant a)",
             "variant=a, shrink (a, d 5e-4, b 1e-4, c 0.8, e 0.4, f 1e-6), noise (a, d 1e-5, b, e 1e-2), norms=false",
             make_shrink_perturb),
      beside("weight-clipping", "Cuts every weight to +-kappa / sqrt(fan in) after every step.",
             "Elsayed et al. 2024, arXiv:2407.01704", "kappa=2, head=true", make_weight_clipping),
      beside("nap", "Scales every attention and MLP matrix back to its first length, so that the effective rate stays.",
             "Lyle et al. 2024, arXiv:2407.01800", "every=1", make_nap),
      beside(
          "cbp",
          "Continual backpropagation: a tiny share of hidden units, those that contribute least, begins anew all the "
          "time.",
          "Dohare et al. 2024, arXiv:2306.13812", "rate=1e-4, maturity=100, decay=0.99, compensate=false", make_cbp),
      beside("trac", "Parameter-free: the base's steps add up to a way from a reference point, and tuners scale it.",
             "Muppidi et al. 2024, arXiv:2405.16642", "mode=accumulator|literal, boundary=keep|rebase", make_trac),
      beside(
          "sam",
          "Takes the gradient a small step uphill, so that flat valleys are preferred to sharp ones. Doubles the cost "
          "of a step.",
          "Foret et al. 2021, arXiv:2010.01412; Kwon et al. 2021, arXiv:2102.11600 (adaptive)",
          "rho=0.05 (adaptive: 2), adaptive=false, head=true", make_sam),
      beside(
          "crelu",
          "Concatenated ReLU in the MLPs, max(z, 0) beside max(-z, 0): one of each pair always passes a gradient. Two "
          "thirds of the hidden units, so that the parameters are as many. The share of active units is 0.5 by "
          "construction: do not compare it with GELU's.",
          "Shang et al. 2016, arXiv:1603.05201; Abbas et al. 2023, arXiv:2303.07507", "", make_crelu, crelu_model),
      beside("adaptive-replay",
             "Few updates from each batch while a task is new, many once the share of active units has settled. "
             "Compare it at equal numbers of updates, which the log holds.",
             "Ma et al. 2023, arXiv:2310.07418", "low=0.5, high=2, delta=1e-3, every=50, probe=64",
             make_adaptive_replay),
      beside(
          "plastic",
          "A flat and lively network: sharpness-aware gradients of all but the head, CReLU, and a new head for every "
          "task, in blocks that are pre-norm anyway. Doubles the cost of a step.",
          "Lee et al. 2023, arXiv:2306.10711", "sam=true, rho=0.1, crelu=true, head-reset=true", make_plastic,
          plastic_model),
      standing_on("adam", 3e-3, 0.0,
                  beside("l2p",
                         "Learning to prompt: a frozen network, and a pool of prompts from which every image gets the "
                         "nearest. Learns prompts, their keys and the head, by Adam. Meant for pre-trained networks.",
                         "Wang et al. 2022, arXiv:2112.08654",
                         "pool=10, length=10, select=4, lambda=1, batchwise=true, batchwise-test=false, "
                         "clear-optimizer=true, lr=3e-3 (published: 0.03, on pre-trained features)",
                         make_l2p, l2p_model)),
      beside("redo", "Recycles dormant hidden units: those whose activation is a tiny share of their layer's.",
             "Sokar et al. 2023, arXiv:2302.12902", "tau=0.025, every=128", make_redo),
      beside("snr", "Self-normalised resets: hidden units that are silent for longer than they usually are begin anew.",
             "Farias & Jozefiak 2024, arXiv:2410.20098",
             "tasks=16, quantile=0.99, expansion=2, tau-min=100, tau-max=20000, fire=0.01", make_snr),
      beside("swr", "Selective weight reinitialisation: in every tensor the weights that matter least begin anew.",
             "Hernandez-Garcia et al. 2025, CoLLAs",
             "every=128, threshold=5e-4 or proportion, utility=gradient|magnitude, value=resample|mean, "
             "clear-moments=false",
             make_swr),
      beside("dash", "Shrinks, at every task, each neuron's weights by how far they disagree with the new task.",
             "Shin et al. 2024, arXiv:2410.23495", "alpha=0.3, lambda=0.3, clear-optimizer=true", make_dash),
      beside("fire", "Makes isometries of Wq and Wk at every task: all their singular values become equal.",
             "Han et al. 2026, arXiv:2602.08040", "iterations=10, tensors=qk, clear-optimizer=false", make_fire),
      beside(
          "head-reset", "Draws the head, or parts of some blocks, anew at every task.",
          "Nikishin et al. 2022, arXiv:2205.07802",
          "head=true, blocks=none|all|last:N|0,3, part=all|attention|mlp|norms, out-zero=false, clear-optimizer=false",
          make_reset),
      beside("fresh", "The control of every claim: a new network, and a new optimizer, for every task.",
             "the reference of the plasticity gap, Lyle et al. 2023, arXiv:2303.01486", "", make_fresh),
  };
}

/// What stands in built_in, then what was registered.
struct Registry {
  std::deque<Method> methods = built_in();  // a reference stays good when one is added
  std::vector<MethodInfo> infos;
  Registry() {
    for (const Method& m : methods) infos.push_back(m.info);
  }
};
Registry& registry() {
  static Registry all;
  return all;
}
const std::deque<Method>& methods() { return registry().methods; }

const Method& method_named(const std::string& name) {
  std::string known;
  for (const Method& m : methods()) {
    if (m.info.name == name) return m;
    known += cat(known.empty() ? "" : ", ", m.info.name);
  }
  fail(Kind::usage, cat("there is no method '", name, "'; known: ", known));
}

/// Whose default rate and decay a method has: those of the optimizer that runs beside ARROW, or of an intervention that
/// brings its update rule along.
const Method& defaults_of(const Method& m, const MethodSpec& spec) {
  for (const MethodSpec& part : spec.with)
    if (const Method& beside = method_named(part.name); beside.info.base == spec.name) return beside;
  const auto base = spec.options.find("base");
  return base != spec.options.end() && base->second == "sgd" ? method_named("sgd") : m;
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_method(std::string_view name) {
  return std::any_of(methods().begin(), methods().end(), [&](const Method& m) { return m.info.name == name; });
}

/// Where the next method of "base+intervention" begins: behind a plus that a method's name follows ("0+3" is a list).
std::size_t next_method(std::string_view text) {
  for (std::size_t plus = text.find('+'); plus != std::string_view::npos; plus = text.find('+', plus + 1))
    if (is_method(text.substr(plus + 1, text.find_first_of(":,+", plus + 1) - plus - 1))) return plus;
  return std::string_view::npos;
}

MethodSpec parse_one(std::string_view text) {
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

/// The rate that the method's text gives, or `otherwise`. An intervention that brings its update rule along may give it, too.
double rate_of(const MethodSpec& spec, double otherwise) {
  const MethodSpec* giver = spec.options.contains("lr") ? &spec : nullptr;
  for (const MethodSpec& part : spec.with) {
    if (method_named(part.name).info.base == "adamw" || !part.options.contains("lr")) continue;
    check(!giver, Kind::usage, [&] {
      return cat("method '", to_text(spec), "': ", giver->name, " and ", part.name, " both give lr; leave one out");
    });
    giver = &part;
  }
  return giver ? OptionReader(*giver).number("lr", 0.0, 0.0, 1e6) : otherwise;
}

}  // namespace

MethodSpec parse_method(std::string_view text) {
  std::vector<MethodSpec> parts;
  for (std::string_view rest = text;;) {
    const std::size_t plus = next_method(rest);
    parts.push_back(parse_one(rest.substr(0, plus)));
    if (plus == std::string_view::npos) break;
    rest.remove_prefix(plus + 1);
  }
  MethodSpec spec;
  for (const MethodSpec& part : parts) {
    if (method_named(part.name).info.intervention) {
      spec.with.push_back(part);
      continue;
    }
    check(spec.name.empty(), Kind::usage, [&] {
      return cat("method '", text, "': ", spec.name, " and ", part.name,
                 " are both update rules; one can carry interventions, as in sgd+l2init");
    });
    spec.name = part.name, spec.options = part.options;
  }
  for (const MethodSpec& part : spec.with)
    if (const std::string& base = method_named(part.name).info.base; spec.name.empty() && base != "adamw")
      spec.name = base;
  if (spec.name.empty()) spec.name = "adamw";
  return spec;
}

std::string to_text(const MethodSpec& spec) {
  std::string text = spec.name;
  for (const auto& [option, value] : spec.options) {
    text += ':' + option;
    if (!value.empty()) text += '=' + value;
  }
  for (const MethodSpec& part : spec.with) text += '+' + to_text(part);
  return text;
}

ModelChange model_change(const MethodSpec& spec) {
  ModelChange change;
  for (const MethodSpec& part : spec.with)
    if (const ChangeModel asks = method_named(part.name).change_model) asks(part, change);
  return change;
}

std::unique_ptr<Optimizer> make_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                          double weight_decay) {
  const Method& m = method_named(spec.name);
  const MethodInfo& defaults = defaults_of(m, spec).info;
  std::vector<std::unique_ptr<Intervention>> parts;
  for (const MethodSpec& part : spec.with) parts.push_back(method_named(part.name).make_intervention(part, parameters));
  MethodSpec base = spec;
  const double rate = rate_of(spec, lr < 0.0 ? defaults.default_lr : lr);
  base.options.erase("lr");
  return combine(m.make(base, parameters, rate, weight_decay < 0.0 ? defaults.default_weight_decay : weight_decay),
                 std::move(parts));
}

const std::vector<MethodInfo>& method_list() { return registry().infos; }

void detail::add_method(MethodInfo info, MakeOptimizer make, MakeIntervention make_beside) {
  const auto letter = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto fits = [&](char c) { return letter(c) || c == '-' || (c >= '0' && c <= '9'); };
  check(!info.name.empty() && letter(info.name[0]) && std::all_of(info.name.begin(), info.name.end(), fits),
        Kind::usage, [&] {
          return cat("a method cannot be called '", info.name,
                     "'; use lower-case letters, digits and hyphens, a letter first, as in my-method");
        });
  check(!is_method(info.name), Kind::usage,
        [&] { return cat("there is a method '", info.name, "' already; choose another name"); });
  info.intervention = make_beside != nullptr;
  registry().infos.push_back(info);
  registry().methods.push_back({std::move(info), make, make_beside});
}

}  // namespace eg
