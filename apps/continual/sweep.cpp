// apps/continual/sweep.cpp - see sweep.h.
#include "apps/continual/sweep.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

#include "engine/error.h"
#include "engine/rng.h"
#include "optim/optimizer.h"

namespace eg {
namespace {

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\n");
  return first == std::string::npos ? std::string() : text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

/// The options that an axis sets in this method, or nullptr when it does not concern it.
std::map<std::string, std::string>* options_for(MethodSpec& spec, const SweepAxis& axis) {
  if (axis.part.empty() || axis.part == spec.name) return &spec.options;
  for (MethodSpec& part : spec.with)
    if (part.name == axis.part) return &part.options;
  return nullptr;
}

/// The axes that concern a method; a general one gives way to one of its update rule.
std::vector<const SweepAxis*> axes_of(const std::string& method, const std::vector<SweepAxis>& axes) {
  MethodSpec spec = parse_method(method);
  std::vector<const SweepAxis*> mine;
  for (const SweepAxis& axis : axes) {
    if (options_for(spec, axis) == nullptr) continue;
    const bool beaten = axis.part.empty() && std::any_of(axes.begin(), axes.end(), [&](const SweepAxis& other) {
                          return other.part == spec.name && other.option == axis.option;
                        });
    if (!beaten) mine.push_back(&axis);
  }
  return mine;
}

}  // namespace

std::vector<SweepAxis> parse_sweep(const std::string& text) {
  std::vector<SweepAxis> axes;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ';');) {
    part = trimmed(part);
    if (part.empty()) continue;
    const std::size_t equals = part.find('=');
    check(equals != std::string::npos && equals > 0, Kind::usage, [&] {
      return cat("--sweep '", part,
                 "' has no values; write for example --sweep lr=1e-4,1e-3 or --sweep arrow.kappa=0,10");
    });
    SweepAxis axis;
    const std::string name = part.substr(0, equals);
    const std::size_t dot = name.find('.');
    axis.part = dot == std::string::npos ? "" : name.substr(0, dot);
    axis.option = dot == std::string::npos ? name : name.substr(dot + 1);
    std::istringstream values(part.substr(equals + 1));
    for (std::string value; std::getline(values, value, ',');) {
      value = trimmed(value);
      check(!value.empty(), Kind::usage, [&] { return cat("--sweep '", part, "' has an empty value"); });
      check(std::find(axis.values.begin(), axis.values.end(), value) == axis.values.end(), Kind::usage,
            [&] { return cat("--sweep '", part, "' names ", value, " twice"); });
      axis.values.push_back(value);
    }
    check(!axis.option.empty() && !axis.values.empty(), Kind::usage,
          [&] { return cat("--sweep '", part, "' needs an option and values: lr=1e-4,1e-3"); });
    for (const SweepAxis& other : axes)
      check(other.part != axis.part || other.option != axis.option, Kind::usage,
            [&] { return cat("--sweep names ", name, " twice; put all its values into one list"); });
    axes.push_back(std::move(axis));
  }
  return axes;
}

void check_sweep(const std::vector<std::string>& methods, const std::vector<SweepAxis>& axes) {
  for (const SweepAxis& axis : axes) {
    const bool used = std::any_of(methods.begin(), methods.end(), [&](const std::string& method) {
      const auto mine = axes_of(method, axes);
      return std::find(mine.begin(), mine.end(), &axis) != mine.end();
    });
    check(used, Kind::usage, [&] {
      return cat("--sweep ", axis.part.empty() ? "" : axis.part + ".", axis.option,
                 " concerns none of --methods; name an update rule or intervention that is among them");
    });
  }
}

std::vector<std::string> sweep_points(const std::string& method, const std::vector<SweepAxis>& axes, int budget) {
  const auto mine = axes_of(method, axes);
  std::size_t all = 1;
  for (const SweepAxis* axis : mine) {
    all *= axis->values.size();
    check(all <= 1'000'000, Kind::usage, [&] { return cat("--sweep gives ", method, " more than a million points"); });
  }
  std::vector<std::size_t> chosen(all);
  std::iota(chosen.begin(), chosen.end(), std::size_t(0));
  if (budget > 0 && all > std::size_t(budget)) {
    shuffle(chosen.begin(), chosen.size(), key(0, "sweep", method));
    chosen.resize(std::size_t(budget));
    std::sort(chosen.begin(), chosen.end());
  }
  std::vector<std::string> points;
  for (std::size_t index : chosen) {
    MethodSpec spec = parse_method(method);
    for (std::size_t a = mine.size(); a-- > 0;) {  // the last axis runs fastest
      const SweepAxis& axis = *mine[a];
      (*options_for(spec, axis))[axis.option] = axis.values[index % axis.values.size()];
      index /= axis.values.size();
    }
    points.push_back(mine.empty() ? method : to_text(spec));
  }
  return points;
}

std::size_t best_point(const std::vector<double>& scores) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < scores.size(); ++i)
    if (scores[i] > scores[best] || (std::isnan(scores[best]) && !std::isnan(scores[i]))) best = i;
  return best;
}

}  // namespace eg
