// optim/plasticity/swr.cpp - selective weight reinitialisation (Hernandez-Garcia et al. 2025, CoLLAs; methods.md B.4):
// every so many steps, in every tensor, the weights that matter least begin anew, each for itself.
//
//   utility_i = |w_i g_i| (g the gradient of this step, w the weight after it) or |w_i|
//   threshold    utility_i <= threshold x mean utility of the tensor
//   proportion   the lowest share of the tensor, its size rounded up or down at random, so that the mean is exact
//
// The new value is drawn from what the tensor was drawn from at the start, or is the mean of that; a norm's gain becomes
// 1 either way. The release leaves moments as they are; `clear-moments` empties those of the weights that changed.
//
// A weight without a gradient has no utility: by |w g|, rows of the head whose classes are masked in that step begin anew.
//
// Selection runs on the host: it reads weights and gradients once in `every` steps, 8 bytes a weight. For ViT-B that is
// 0.7 GB in 128 steps.
#include <algorithm>
#include <cmath>

#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Swr final : public Intervention {
 public:
  Swr(const MethodSpec& spec, const Parameters& p) : params_(p) {
    OptionReader r(spec);
    every_ = r.integer("every", 128, 1, 1000000000);
    by_gradient_ = r.choice("utility", {"gradient", "magnitude"}, 0) == 0;
    proportional_ = spec.options.contains("proportion");
    check(!proportional_ || !spec.options.contains("threshold"), Kind::usage,
          [&] { return cat(spec.name, ": threshold and proportion are two rules of selection; give one"); });
    threshold_ = r.number("threshold", 5e-4, 0.0, 1e6);
    proportion_ = r.number("proportion", 0.0, 0.0, 1.0);
    resample_ = r.choice("value", {"resample", "mean"}, 0) == 0;
    clears_ = r.flag("clear-moments", false);
    r.finish();
    counters_ = Tensor::zeros({1}, DType::f64, kCpu);
  }
  std::string name() const override { return "swr"; }
  Stage stage() const override { return Stage::replacement; }
  void attach(Optimizer& base) override { base_ = &base; }
  bool after_step(StepContext& ctx) override {
    const StepRecord& record = *ctx.host_step;
    if (!record.finite || record.step == 0 || record.step % every_ != 0) return false;
    if (proportional_ && proportion_ == 0.0) return false;
    bool changed = false;
    for (const Param* p : params_.list)
      if (!p->frozen) changed |= reinitialise(*p, record);
    if (changed) params_.arena->refresh_work();
    return changed;
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("counters", counters_);
  }
  std::size_t state_bytes() const override { return counters_.bytes(); }
  std::map<std::string, double> scalars() override { return {{"replaced", counters_.data_as<double>()[0]}}; }
  std::string describe() const override {
    return cat("selective weight reinitialisation every ", every_, " steps, ", by_gradient_ ? "|w g|" : "|w|",
               proportional_ ? cat(" lowest ", proportion_) : cat(" up to ", threshold_, " of the mean"),
               resample_ ? ", drawn anew" : ", set to the mean", clears_ ? ", moments cleared" : "");
  }

 private:
  bool reinitialise(const Param& p, const StepRecord& record) {
    std::vector<double> w = p.master.to_host();
    const std::vector<std::int64_t> which = least_useful(p, w, record);
    if (which.empty()) return false;
    const std::vector<double> drawn = resample_
                                          ? ParamArena::draw_elements(p, which, record.seed, std::uint32_t(record.step))
                                          : std::vector<double>(which.size(), moments_of(p.init).mean);
    for (std::size_t k = 0; k < which.size(); ++k) w[std::size_t(which[k])] = drawn[k];
    p.master.copy_from(Tensor::from(w, p.shape, p.master.dtype(), params_.arena->device));
    if (clears_)
      base_->visit_moments([&](Tensor& moments) {
        const Tensor own = moments.slice(p.offset, p.size());
        std::vector<double> values = own.to_host();
        for (const std::int64_t i : which) values[std::size_t(i)] = 0.0;
        own.copy_from(Tensor::from(values, own.shape(), own.dtype(), params_.arena->device));
      });
    counters_.data_as<double>()[0] += double(which.size());
    return true;
  }

  /// Places in the tensor, ascending.
  std::vector<std::int64_t> least_useful(const Param& p, const std::vector<double>& w, const StepRecord& record) const {
    const std::size_t n = w.size();
    std::vector<double> utility(n);
    const std::vector<double> g = by_gradient_ ? p.grad.to_host() : std::vector<double>();
    double mean = 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      utility[i] = by_gradient_ ? std::abs(w[i] * g[i]) : std::abs(w[i]);
      mean += utility[i] / double(n);
    }
    std::vector<std::int64_t> which;
    if (!proportional_) {
      for (std::size_t i = 0; i < n; ++i)
        if (utility[i] <= threshold_ * mean) which.push_back(std::int64_t(i));
      return which;
    }
    const double chance = key(record.seed, "swr", p.name, std::uint32_t(record.step)).uniform(0);
    const auto count = std::min(n, std::size_t(proportion_ * double(n) + chance));
    std::vector<std::size_t> order(n);
    for (std::size_t i = 0; i < n; ++i) order[i] = i;
    const auto less = [&](std::size_t a, std::size_t b) {
      return utility[a] != utility[b] ? utility[a] < utility[b] : a < b;  // equals: the lower index first
    };
    if (count < n) std::nth_element(order.begin(), order.begin() + std::ptrdiff_t(count), order.end(), less);
    which.assign(order.begin(), order.begin() + std::ptrdiff_t(count));
    std::sort(which.begin(), which.end());
    return which;
  }

  Parameters params_;
  Optimizer* base_ = nullptr;
  std::int64_t every_ = 0;
  bool by_gradient_ = true, proportional_ = false, resample_ = true, clears_ = false;
  double threshold_ = 0.0, proportion_ = 0.0;
  Tensor counters_;  // f64 on the host: weights replaced so far
};

}  // namespace

std::unique_ptr<Intervention> make_swr(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Swr>(spec, p);
}

}  // namespace eg
