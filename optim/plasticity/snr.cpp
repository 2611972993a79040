// optim/plasticity/snr.cpp - self-normalised resets (Farias & Jozefiak 2024, arXiv:2410.20098; methods.md B.3): a hidden
// unit is replaced when it has been silent for longer than it ever is, by its own history.
//
//   age         examples since the unit last fired: 0 when it fired in this step, else + images of the step
//   histogram   of the ages at which it fired again, or was replaced
//   replaced    when age >= its threshold tau, which begins at tau-max: nothing is known of the unit
//   every `tasks` tasks   tau = quantile of the histogram where that is below tau, else expansion x tau; within
//                         [tau-min, tau-max]; the histogram begins anew
//
// The paper says that a unit fires when z > 0, for ReLU and one z an example. A GELU has no dead side, and among all
// tokens of a batch some z is positive almost always. So a unit fires here when at least the share `fire` of its z, over
// images and tokens, is positive (methods.md D.2, unit_alive; 0.01 of it by default); fire=0 is the paper's rule.
//
// The host decides: it reads a count per unit in every step.
#include <algorithm>
#include <cmath>

#include "optim/plasticity/units.h"

namespace eg {
namespace {

/// Four buckets per doubling of 1 + age: bucket b holds the ages up to last_of(b).
int bucket_of(double age) { return int(4.0 * std::log2(1.0 + age)); }
double last_of(int bucket) { return std::ceil(std::exp2(double(bucket + 1) / 4.0)) - 2.0; }

class Snr final : public UnitMethod {
 public:
  Snr(const MethodSpec& spec, const Parameters& p) : UnitMethod(spec, p) {
    OptionReader r(spec);
    tasks_ = r.integer("tasks", 16, 1, 1000000000);
    quantile_ = r.number("quantile", 0.99, 0.0, 1.0);
    expansion_ = r.number("expansion", 2.0, 1.0, 1e6);
    tau_max_ = r.number("tau-max", 20000.0, 1.0, 1e15);
    tau_min_ = r.number("tau-min", std::min(100.0, tau_max_), 1.0, 1e15);
    fire_ = r.number("fire", 0.01, 0.0, 1.0);
    r.finish();
    check(tau_min_ <= tau_max_, Kind::usage,
          [&] { return cat(spec.name, ": tau-min=", tau_min_, " is above tau-max=", tau_max_); });
    watch(false, true, false);
    for (const Layer& l : layers_)
      histories_.push_back({Tensor::zeros({l.size()}, DType::f64, kCpu), Tensor::zeros({l.size()}, DType::f64, kCpu),
                            Tensor::zeros({l.size(), bucket_of(tau_max_) + 1}, DType::i32, kCpu)});
    for (History& h : histories_) std::fill_n(h.tau.data_as<double>(), h.tau.size(), tau_max_);
  }
  std::string name() const override { return "snr"; }
  void after_update(StepContext& ctx) override {
    for (Layer& l : layers_)
      EVERGRAD_CALL(params_.arena->device, unit_utility,
                    UnitUtility{.sum_abs = l.sums.positive.view(),
                                .steps = l.units.steps.view(),
                                .keep_every = 1,
                                .step = ctx.device_step},
                    ctx.stream);
  }
  bool after_step(StepContext& ctx) override {
    bool changed = false;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      Layer& l = layers_[i];
      const std::vector<double> positive = l.sums.positive.to_host();
      const double rows = l.sums.rows.to_host()[0];
      l.sums.positive.set_zero(), l.sums.rows.set_zero();
      if (!ctx.host_step->finite) continue;
      std::vector<std::int32_t> silent;
      double *const age = histories_[i].age.data_as<double>(), *const tau = histories_[i].tau.data_as<double>();
      for (std::size_t f = 0; f < positive.size(); ++f) {
        const bool fired = positive[f] > 0.0 && positive[f] >= fire_ * rows;
        if (!fired) age[f] += double(ctx.images);
        const bool too_long = !fired && age[f] >= tau[f];
        if (too_long) silent.push_back(std::int32_t(f));
        if (!fired && !too_long) continue;
        note(histories_[i], f);
        age[f] = 0.0;
      }
      replace(l, silent, ctx);
      changed |= !silent.empty();
    }
    return changed;
  }
  void task_boundary(StepContext&) override {
    double& tasks = counters_.data_as<double>()[1];
    if ((tasks += 1.0) < double(tasks_)) return;
    tasks = 0.0;
    for (History& h : histories_) {
      double* const tau = h.tau.data_as<double>();
      for (std::int64_t f = 0; f < h.tau.size(); ++f) {
        const double usual = quantile_of(h, f);
        tau[f] = std::clamp(usual < tau[f] ? usual : expansion_ * tau[f], tau_min_, tau_max_);
      }
      h.counts.set_zero();
    }
  }
  std::map<std::string, double> scalars() override {
    double sum = 0.0, units = 0.0;
    for (const History& h : histories_)
      for (const double tau : h.tau.to_host()) sum += tau, units += 1.0;
    return {{"replaced", double(replaced())}, {"mean-threshold", sum / units}};
  }
  std::string describe() const override {
    return cat("self-normalised resets: silence beyond the ", quantile_, " quantile, thresholds every ", tasks_,
               " tasks within ", tau_min_, " to ", tau_max_, " images, firing at a share of ", fire_);
  }

 protected:
  void visit_layer(Layer& l, const std::function<void(const std::string&, Tensor&)>& visit) override {
    UnitMethod::visit_layer(l, visit);
    History& h = histories_[std::size_t(&l - layers_.data())];
    visit("age", h.age), visit("tau", h.tau), visit("histogram", h.counts);
  }

 private:
  struct History {
    Tensor age, tau;  // f64 [F]
    Tensor counts;    // i32 [F, buckets]; the last holds all that is longer
  };
  void note(History& h, std::size_t f) const {
    const std::int64_t buckets = h.counts.cols();
    const std::int64_t bucket = std::min<std::int64_t>(bucket_of(h.age.data_as<double>()[f]), buckets - 1);
    h.counts.data_as<std::int32_t>()[std::int64_t(f) * buckets + bucket] += 1;
  }
  /// The largest age of the bucket that holds the quantile; infinity where nothing was noted.
  double quantile_of(const History& h, std::int64_t f) const {
    const std::int64_t buckets = h.counts.cols();
    const std::int32_t* const counts = h.counts.data_as<std::int32_t>() + f * buckets;
    double total = 0.0, so_far = 0.0;
    for (std::int64_t b = 0; b < buckets; ++b) total += double(counts[b]);
    for (std::int64_t b = 0; b < buckets && total > 0.0; ++b)
      if ((so_far += double(counts[b])) > 0.0 && so_far >= quantile_ * total) return last_of(int(b));
    return HUGE_VAL;
  }

  std::int64_t tasks_ = 0;
  double quantile_ = 0.0, expansion_ = 0.0, tau_min_ = 0.0, tau_max_ = 0.0, fire_ = 0.0;
  std::vector<History> histories_;
};

}  // namespace

std::unique_ptr<Intervention> make_snr(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Snr>(spec, p);
}

}  // namespace eg
