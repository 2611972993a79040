// optim/plasticity/cbp.cpp - continual backpropagation (Dohare et al. 2024, Nature 632 and arXiv:2306.13812): a tiny share
// of the hidden units, those that contribute least, begins anew all the time.
//
// After every update: steps += 1 and utility = decay utility + (1 - decay) mean |h| mean_o |w_out|. Per layer the number
// of mature units times the rate is added up; whenever that reaches one, so many units of least utility are replaced.
//
// With `compensate`, what a unit gave on average, its column of the second matrix times mean h (averaged like the
// utility), goes into the second bias before the unit leaves. The released code clears the mean before it reads it, so
// that its compensation does nothing (methods.md B.1).
//
// Which units are mature depends on counts alone, so the host looks at the device only when something is replaced.
#include <algorithm>
#include <cmath>

#include "optim/plasticity/units.h"

namespace eg {
namespace {

class Cbp final : public UnitMethod {
 public:
  Cbp(const MethodSpec& spec, const Parameters& p) : UnitMethod(spec, p) {
    OptionReader r(spec);
    rate_ = r.number("rate", 1e-4, 0.0, 1.0);
    maturity_ = r.integer("maturity", 100, 0, 1000000000);
    decay_ = r.number("decay", 0.99, 0.0, 0.999999);
    compensates_ = r.flag("compensate", false);
    r.finish();
    watch(true, false, compensates_);
    for (Layer& l : layers_) {
      l.utility = Tensor::zeros({l.size()}, p.arena->device.statistic(), p.arena->device);
      if (!compensates_) continue;
      l.mean = Tensor::zeros({l.size()}, p.arena->device.statistic(), p.arena->device);
      check(l.units.fc2_bias && !l.units.fc2_bias->frozen, Kind::usage, [&] {
        return cat(spec.name, ": block ", l.block, " has no second bias that could take over; leave out compensate");
      });
    }
  }
  std::string name() const override { return "cbp"; }
  void after_update(StepContext& ctx) override {
    for (Layer& l : layers_) {
      UnitUtility u{.sum_abs = l.sums.absolute.view(),
                    .weight_out = l.units.fc2_weight->master.view(),
                    .utility = l.utility.view(),
                    .steps = l.units.steps.view(),
                    .rows = double(std::max<std::int64_t>(1, ctx.images)),
                    .decay = decay_,
                    .step = ctx.device_step};
      if (compensates_) u.sum = l.sums.value.view(), u.row_count = l.sums.rows.view(), u.mean = l.mean.view();
      EVERGRAD_CALL(params_.arena->device, unit_utility, u, ctx.stream);
      if (compensates_) EVERGRAD_CALL(params_.arena->device, fill, Fill{.x = u.row_count}, ctx.stream);
    }
  }
  bool after_step(StepContext& ctx) override {
    if (!ctx.host_step->finite || rate_ == 0.0) return false;
    if (ages_.empty())
      for (const Layer& l : layers_) {  // the first step, or the first after a checkpoint was loaded
        ages_.push_back(l.units.steps.to_host());
        for (double& age : ages_.back()) age -= 1.0;
      }
    bool changed = false;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      std::int64_t mature = 0;
      for (double& age : ages_[i]) mature += (age += 1.0) > double(maturity_);
      double& due = counters_.data_as<double>()[i + 1];
      due += rate_ * double(mature);
      if (due < 1.0) continue;
      const auto count = std::int64_t(due);
      due -= double(count);
      const std::vector<std::int32_t> which = least_useful(i, count);
      if (compensates_) compensate(i, which, ctx);
      replace(layers_[i], which, ctx);
      for (const std::int32_t unit : which) ages_[i][std::size_t(unit)] = 0.0;
      changed = true;
    }
    return changed;
  }
  void state_restored() override { ages_.clear(); }
  std::string describe() const override {
    return cat("continual backpropagation at rate ", rate_, ", maturity ", maturity_, " steps, utility decay ", decay_,
               compensates_ ? ", their mean moved into the bias" : "");
  }

 private:
  /// Mature units by bias-corrected utility, the lower index first among equals.
  std::vector<std::int32_t> least_useful(std::size_t layer, std::int64_t count) const {
    const std::vector<double> utility = layers_[layer].utility.to_host();
    std::vector<std::pair<double, std::int32_t>> mature;
    for (std::size_t f = 0; f < utility.size(); ++f) {
      const double age = ages_[layer][f];
      if (age > double(maturity_)) mature.emplace_back(utility[f] / (1.0 - std::pow(decay_, age)), std::int32_t(f));
    }
    std::sort(mature.begin(), mature.end());
    std::vector<std::int32_t> which;
    for (std::int64_t k = 0; k < std::min<std::int64_t>(count, std::int64_t(mature.size())); ++k)
      which.push_back(mature[std::size_t(k)].second);
    return which;
  }

  /// b2 += W2 m, m the bias-corrected mean of h for the units that go, zero elsewhere.
  void compensate(std::size_t layer, const std::vector<std::int32_t>& which, StepContext& ctx) const {
    const Layer& l = layers_[layer];
    const Device device = params_.arena->device;
    const std::vector<double> mean = l.mean.to_host();
    std::vector<double> moved(mean.size(), 0.0);
    for (const std::int32_t unit : which)
      moved[std::size_t(unit)] = mean[std::size_t(unit)] / (1.0 - std::pow(decay_, ages_[layer][std::size_t(unit)]));
    const Tensor column = Tensor::from(moved, {l.size(), 1}, params_.arena->master.dtype(), device);
    const Param& bias = *l.units.fc2_bias;
    EVERGRAD_CALL(device, matmul,
                  Matmul{.a = l.units.fc2_weight->master.view(),
                         .b = column.view(),
                         .c = bias.master.reshape({bias.size(), 1}).view(),
                         .accumulate = true},
                  ctx.stream);
    if (params_.arena->work)
      EVERGRAD_CALL(device, cast, Cast{.from = bias.master.view(), .to = bias.value.view()}, ctx.stream);
  }

  bool compensates_ = false;
  double rate_ = 0.0, decay_ = 0.0;
  std::int64_t maturity_ = 0;
  std::vector<std::vector<double>> ages_;  // the device's counts, followed on the host
};

}  // namespace

std::unique_ptr<Intervention> make_cbp(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Cbp>(spec, p);
}

}  // namespace eg
