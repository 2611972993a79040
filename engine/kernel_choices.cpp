// engine/kernel_choices.cpp - see kernel_choices.h.
#include "engine/kernel_choices.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <iterator>
#include <optional>
#include <utility>

#include "engine/error.h"
#include "engine/kernel_cache.h"

namespace eg {
namespace {

constexpr int kRounds = 7;
/// What another implementation must save: less is noise, and the same choice again and again is worth more.
constexpr double kWorthwhile = 0.98;
/// Two implementations of one call may differ by rounding: 2^-8 of every number when both round to bf16. Four times that,
/// over the norm, is far from what a wrong operand, a forgotten bias or another GELU does.
constexpr double kSameOperation = 1.0 / 64.0;

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

std::optional<std::size_t> place_of(const std::string& name, std::span<const KernelImplementation> all) {
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].name == name) return i;
  return std::nullopt;
}

bool finite(const std::vector<std::vector<float>>& results) {
  for (const std::vector<float>& part : results)
    if (!std::all_of(part.begin(), part.end(), [](float v) { return std::isfinite(v); })) return false;
  return true;
}

/// Of the output in which the two differ most, the norm of the difference over the norm.
double difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double apart = 0.0, norm = 0.0;
    for (std::size_t j = 0; j < a[i].size(); ++j) {
      const double x = double(a[i][j]), y = double(b[i][j]);
      apart += (x - y) * (x - y), norm += x * x;
    }
    if (apart > 0.0) worst = std::max(worst, std::sqrt(apart / norm));  // infinite when all should be zero
  }
  return worst;
}

}  // namespace

KernelMode parse_kernel_mode(std::string_view text) {
  if (text == "hand") return KernelMode::hand;
  if (text == "library") return KernelMode::library;
  if (text == "auto") return KernelMode::automatic;
  fail(Kind::usage, cat("--kernels ", text, " is none of hand, library, auto"));
}

std::string to_string(KernelMode mode) {
  switch (mode) {
    case KernelMode::hand: return "hand";
    case KernelMode::library: return "library";
    case KernelMode::automatic: return "auto";
  }
  return "?";
}

void KernelChoices::describe(std::vector<std::string> names, std::string identity, Clock clock) {
  const std::lock_guard lock(mutex_);
  names_ = std::move(names), identity_ = std::move(identity), clock_ = std::move(clock);
}

void KernelChoices::start(Start start) {
  const std::lock_guard lock(mutex_);
  for (const KernelChoice& c : start.pinned)
    check(std::find(names_.begin(), names_.end(), c.chosen) != names_.end(), Kind::usage, [&] {
      return cat("this run took the kernel '", c.chosen, "' for ", c.call,
                 ", and this build has no such kernel (it has: ", joined(names_),
                 "); build evergrad with the library that has it, or begin a new run with another --out");
    });
  check(start.mode != KernelMode::automatic || !start.measures || clock_, Kind::usage, [] {
    return std::string("--kernels auto measures, and this device has no clock; use --kernels hand or library");
  });
  start_ = std::move(start);
  index_.clear(), made_.clear(), cached_.clear(), pinned_.clear();
  for (std::size_t i = 0; i < start_.pinned.size(); ++i) pinned_[start_.pinned[i].call] = i;
  if (start_.mode == KernelMode::automatic && start_.known) {
    cached_ = *start_.known;
  } else if (start_.mode == KernelMode::automatic) {
    CachedChoices cached = read_kernel_cache(start_.cache, identity_);
    if (!cached.damage.empty()) warn(cat("the measurements of kernels in ", cached.damage, "; they are taken anew"));
    cached_ = std::move(cached.chosen);
  }
  trusts_watched_ = true;
  active_ = start_.mode != KernelMode::hand || !start_.pinned.empty();
}

std::size_t KernelChoices::choose(const std::string& call, std::span<const KernelImplementation> all, bool recording,
                                  const MakeTrial& trial) {
  if (all.size() < 2 && !pinned_.contains(call)) return 0;
  const std::lock_guard lock(mutex_);
  auto found = index_.find(call);
  if (found == index_.end()) {
    KernelChoice choice = decide(call, all, recording, trial);
    if (const auto place = place_of(choice.chosen, all))
      choice.watched = all[*place].watched, choice.instead = all[0].name;
    if (start_.chosen) start_.chosen(choice);
    made_.push_back(std::move(choice));
    found = index_.emplace(call, made_.size() - 1).first;
  }
  const std::string& name = made_[found->second].chosen;
  const std::optional<std::size_t> place = place_of(name, all);
  check(place.has_value(), Kind::usage, [&] {
    std::vector<std::string> have;
    for (const KernelImplementation& i : all) have.push_back(i.name);
    return cat("this run takes the kernel '", name, "' for ", call,
               ", which is not possible here (possible: ", joined(have),
               "); use the device and the build that the run began with, or begin a new run");
  });
  return usable(all[*place]) ? *place : 0;
}

std::vector<KernelChoice> KernelChoices::trust_watched(bool yes) {
  const std::lock_guard lock(mutex_);
  std::vector<KernelChoice> changed;
  if (std::exchange(trusts_watched_, yes) != yes)
    std::copy_if(made_.begin(), made_.end(), std::back_inserter(changed), [](const auto& c) { return c.watched; });
  return changed;
}

KernelChoice KernelChoices::decide(const std::string& call, std::span<const KernelImplementation> all, bool recording,
                                   const MakeTrial& trial) {
  if (const auto at = pinned_.find(call); at != pinned_.end())
    return {call, start_.pinned[at->second].chosen, "this run", {}};
  if (start_.mode == KernelMode::library)
    for (const KernelImplementation& i : all)
      if (i.library && usable(i)) return {call, i.name, "rule", {}};
  if (start_.mode != KernelMode::automatic || recording) return {call, all[0].name, "rule", {}};
  if (const auto at = cached_.find(call); at != cached_.end()) {
    if (place_of(at->second, all)) return {call, at->second, "cache", {}};  // choose() looks whether it is trusted
    warn(cat("the kernel '", at->second, "', once measured as the fastest for ", call, ", is not possible here; ",
             start_.measures ? "it is measured anew" : "our own rule decides"));
  }
  if (!start_.measures) return {call, all[0].name, "rule", {}};
  return measure(call, all, trial);
}

KernelChoice KernelChoices::measure(const std::string& call, std::span<const KernelImplementation> all,
                                    const MakeTrial& make) {
  KernelChoice choice{call, all[0].name, "measured", {}};
  std::unique_ptr<KernelTrial> trial;
  try {
    trial = make();
  } catch (const Error& e) {
    if (e.kind != Kind::memory) throw;
    choice.origin = "rule";
    warn(cat("no memory to measure the kernels of ", call, ", so our own is taken: ", e.what()));
    return choice;
  }
  const auto result_of = [&](std::size_t i) {
    trial->prepare();
    trial->run(i);
    return trial->results();
  };
  const std::vector<std::vector<float>> ours = result_of(0);
  if (!finite(ours)) {  // nothing can be compared with this; the step itself will say what is wrong
    choice.origin = "rule";
    return choice;
  }
  // Whoever computes something else, or not the same twice, is out, however fast.
  for (std::size_t i = 0; i < all.size(); ++i) {
    KernelTime t{all[i].name, 0.0, {}};
    if (!usable(all[i])) {
      t.refused = "a gradient of this run was not finite";
      choice.times.push_back(std::move(t));
      continue;
    }
    try {
      const auto first = result_of(i), again = result_of(i);
      const double apart = finite(first) ? difference(ours, first) : HUGE_VAL;
      if (apart > kSameOperation)
        t.refused = cat("its result is ", apart, " of the norm away from ours");
      else if (first != again)
        t.refused = "it gave two results for the same call";
    } catch (const Error& e) {
      if (i == 0) throw;
      t.refused = e.what();
      if (e.kind == Kind::device) try {  // refused, or has it stopped the device for all that follow?
          result_of(0);
        } catch (const Error&) {
          fail(Kind::device, cat("the kernel '", t.name, "', tried for ", call, ", stopped the device: ", e.what(),
                                 "; --kernels hand tries none"));
        }
    }
    if (!t.refused.empty()) {
      check(i > 0, Kind::internal, [&] { return cat(t.name, " for ", call, ": ", t.refused); });
      warn(cat("the kernel '", t.name, "' is not used for ", call, ": ", t.refused));
    }
    choice.times.push_back(std::move(t));
  }
  // In turns, so that a card that warms up or is shared slows all of them alike.
  std::vector<std::vector<double>> times(all.size());
  for (int round = 0; round < kRounds; ++round)
    for (std::size_t i = 0; i < all.size(); ++i)
      if (choice.times[i].refused.empty())
        times[i].push_back(clock_(call, all[i].name, trial->stream(), [&, i] { trial->run(i); }));
  std::size_t best = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (times[i].empty()) continue;
    std::nth_element(times[i].begin(), times[i].begin() + kRounds / 2, times[i].end());
    choice.times[i].milliseconds = times[i][kRounds / 2];
    if (choice.times[i].milliseconds < choice.times[best].milliseconds) best = i;
  }
  if (choice.times[best].milliseconds > kWorthwhile * choice.times[0].milliseconds) best = 0;
  choice.chosen = all[best].name;
  if (start_.cache.empty()) return choice;
  try {
    add_to_kernel_cache(start_.cache, identity_, call, choice.chosen);
  } catch (const Error& e) {
    warn(cat("measured kernels are not kept for other runs: ", e.what()));
    start_.cache.clear();
  }
  return choice;
}

void KernelChoices::warn(const std::string& text) const {
  if (start_.warn)
    start_.warn(text);
  else
    std::cerr << "evergrad: " << text << '\n';
}

std::vector<KernelChoice> KernelChoices::made() const {
  const std::lock_guard lock(mutex_);
  return made_;
}

KernelChoices& kernel_choices(Device device) {
  static std::mutex mutex;
  static std::map<std::pair<DeviceType, int>, KernelChoices> all;
  const std::lock_guard lock(mutex);
  return all[{device.type, device.index}];
}

}  // namespace eg
