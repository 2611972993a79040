// optim/plasticity/weight_clipping.cpp - weight clipping (Elsayed et al. 2024, arXiv:2407.01704): after every step each
// weight is cut to +-kappa / sqrt(fan in).
#include <cmath>

#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class WeightClipping final : public Intervention {
 public:
  WeightClipping(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    kappa_ = r.number("kappa", 2.0, 1e-6, 1e9);
    const bool head = r.flag("head", true);
    r.finish();
    // Norms, tokens and positions have no fan-in.
    segments_ = weight_segments(p, [&](const Param& param, WeightSegment& s) {
      if (param.fan_in <= 0 || (param.module == Module::head && !head)) return false;
      s.bound = float(kappa_ / std::sqrt(double(param.fan_in)));
      return true;
    });
  }
  std::string name() const override { return "weight-clipping"; }
  Stage stage() const override { return Stage::clipping; }
  void after_update(StepContext& ctx) override {
    EVERGRAD_CALL(
        arena_.device, weight_perturb,
        WeightPerturb{
            .weight = arena_.master.view(), .work = work_of(arena_), .segments = segments_, .step = ctx.device_step},
        ctx.stream);
  }
  std::string describe() const override { return cat("weights clipped to +-", kappa_, " / sqrt(fan in)"); }

 private:
  ParamArena& arena_;
  double kappa_ = 0.0;
  std::vector<WeightSegment> segments_;
};

}  // namespace

std::unique_ptr<Intervention> make_weight_clipping(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<WeightClipping>(spec, p);
}

}  // namespace eg
