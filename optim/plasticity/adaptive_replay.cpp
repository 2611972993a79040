// optim/plasticity/adaptive_replay.cpp - the adaptive replay ratio (Ma et al. 2023, arXiv:2310.07418) for supervised streams
// (methods.md B.14): a task begins with few updates from each batch that arrives, and goes on with many once the share of
// active units has settled.
//
// Every `every` updates the share of positive pre-activations is measured on a fixed probe, the first images of the task.
// When it has changed by at most `delta` since the last measurement, the ratio of updates to batches rises from `low` to
// `high`, once in a task. Ratios may be fractions: 0.5 is one update from every second batch. More updates are more
// compute, so a comparison needs a control with as many: the log holds their number.
#include <cmath>
#include <limits>

#include "optim/plasticity/intervention.h"

namespace eg {
namespace {

enum Counter : int { kDue, kUpdates, kMeasuredAt, kShare, kRaised, kBatches, kCounters };

class AdaptiveReplay final : public Intervention {
 public:
  explicit AdaptiveReplay(const MethodSpec& spec) {
    OptionReader r(spec);
    low_ = r.number("low", 0.5, 0.0, 64.0);
    high_ = r.number("high", 2.0, 0.0, 64.0);
    delta_ = r.number("delta", 1e-3, 0.0, 1.0);
    every_ = r.integer("every", 50, 1, 1000000000);
    images_ = r.integer("probe", 64, 1, 65536);
    r.finish();
    check(low_ > 0.0 && high_ > 0.0, Kind::usage, [&] {
      return cat(spec.name, ": low=", low_, " and high=", high_, " are updates per batch and must both be above 0");
    });
    counters_ = Tensor::zeros({kCounters}, DType::f64, kCpu);
    at(kShare) = std::numeric_limits<double>::quiet_NaN();
  }
  std::string name() const override { return "adaptive-replay"; }
  Stage stage() const override { return Stage::scaling; }
  bool rewrites_weights() const override { return false; }
  std::int64_t probe_images() const override { return low_ == high_ ? 0 : images_; }
  std::int64_t updates_from_batch(StepContext& ctx) override {
    at(kBatches) += 1.0;
    if (at(kRaised) == 0.0 && low_ != high_ && at(kUpdates) - at(kMeasuredAt) >= double(every_)) {
      const double share = ctx.active_share(), change = std::abs(share - at(kShare));
      at(kMeasuredAt) = at(kUpdates), at(kShare) = share;
      if (change <= delta_) at(kRaised) = 1.0;  // false for the first measurement, whose change is NaN
    }
    at(kDue) += at(kRaised) == 0.0 ? low_ : high_;
    const double now = std::floor(at(kDue));
    at(kDue) -= now;
    return std::int64_t(now);
  }
  bool after_step(StepContext&) override { return at(kUpdates) += 1.0, false; }
  void task_boundary(StepContext&) override {
    at(kDue) = 0.0, at(kRaised) = 0.0, at(kMeasuredAt) = at(kUpdates);
    at(kShare) = std::numeric_limits<double>::quiet_NaN();
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("counters", counters_);
  }
  std::size_t state_bytes() const override { return counters_.bytes(); }
  std::map<std::string, double> scalars() override {
    std::map<std::string, double> all{{"updates", at(kUpdates)}, {"batches", at(kBatches)}, {"raised", at(kRaised)}};
    if (std::isfinite(at(kShare))) all["active_share"] = at(kShare);
    return all;
  }
  std::string describe() const override {
    return cat(low_, " updates from a batch, ", high_, " once the share of active units changes by at most ", delta_,
               " in ", every_, " updates");
  }

 private:
  double& at(Counter c) { return counters_.data_as<double>()[c]; }

  double low_ = 0.0, high_ = 0.0, delta_ = 0.0;
  std::int64_t every_ = 0, images_ = 0;
  Tensor counters_;  // f64 on the host, see Counter
};

}  // namespace

std::unique_ptr<Intervention> make_adaptive_replay(const MethodSpec& spec, const Parameters&) {
  return std::make_unique<AdaptiveReplay>(spec);
}

}  // namespace eg
