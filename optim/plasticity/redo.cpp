// optim/plasticity/redo.cpp - recycling dormant neurons (Sokar et al. 2023, arXiv:2302.12902): every so many steps, hidden
// units whose mean activation is a tiny share of their layer's are replaced.
//
// score_i = mean |h_i| / (mean over units of mean |h| + 1e-9) on that step's batch; dormant: score <= tau. Scores are
// normalised to mean one, as the released code has it (its paper's prose says sum one).
#include "optim/plasticity/units.h"

namespace eg {
namespace {

class Redo final : public UnitMethod {
 public:
  Redo(const MethodSpec& spec, const Parameters& p) : UnitMethod(spec, p) {
    OptionReader r(spec);
    tau_ = r.number("tau", 0.025, 0.0, 1e6);
    every_ = r.integer("every", 128, 1, 1000000000);
    r.finish();
    watch(true, false, false);
  }
  std::string name() const override { return "redo"; }
  void after_update(StepContext& ctx) override {
    for (Layer& l : layers_)
      EVERGRAD_CALL(params_.arena->device, unit_utility,
                    UnitUtility{.sum_abs = l.sums.absolute.view(),
                                .steps = l.units.steps.view(),
                                .keep_every = every_,
                                .step = ctx.device_step},
                    ctx.stream);
  }
  bool after_step(StepContext& ctx) override {
    if (ctx.host_step->step % every_ != 0) return false;
    bool changed = false;
    for (Layer& l : layers_) {
      const std::vector<double> sums = l.sums.absolute.to_host();
      l.sums.absolute.set_zero();
      if (!ctx.host_step->finite || ctx.host_step->step == 0) continue;
      double mean = 0.0;
      for (const double s : sums) mean += s / double(sums.size());
      std::vector<std::int32_t> dormant;
      for (std::size_t f = 0; f < sums.size(); ++f)
        if (sums[f] / (mean + 1e-9) <= tau_) dormant.push_back(std::int32_t(f));
      replace(l, dormant, ctx);
      changed |= !dormant.empty();
    }
    return changed;
  }
  std::string describe() const override {
    return cat("ReDo every ", every_, " steps, units of score up to ", tau_, " replaced");
  }

 private:
  double tau_ = 0.0;
  std::int64_t every_ = 0;
};

}  // namespace

std::unique_ptr<Intervention> make_redo(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Redo>(spec, p);
}

}  // namespace eg
