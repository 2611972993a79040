// optim/plasticity/penalties.cpp - L2, and L2 Init (Kumar et al. 2023, arXiv:2308.11958): strength/2 |w - w0|^2 in the
// loss pulls weights towards zero, or to where they began.
#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Penalty final : public Intervention {
 public:
  Penalty(const MethodSpec& spec, const Parameters& p, bool to_init) : arena_(*p.arena), to_init_(to_init) {
    OptionReader r(spec);
    strength_ = r.number("strength", to_init ? 1e-3 : 1e-4, 0.0, 1e6);
    const bool biases = r.flag("biases", to_init), norms = r.flag("norms", false);
    r.finish();
    groups_ = weight_segments_by_group(p, [&](const Param& param, WeightSegment& s) {
      s.pull = float(strength_);
      return param.role == Role::norm ? norms : param.role == Role::bias ? biases : true;
    });
    if (to_init_) anchor_ = arena_.master.clone();
  }
  std::string name() const override { return to_init_ ? "l2init" : "l2"; }
  Stage stage() const override { return Stage::noise; }
  bool rewrites_weights() const override { return false; }
  void penalty(int group, StepContext& ctx) override {
    if (strength_ == 0.0) return;
    EVERGRAD_CALL(arena_.device, weight_penalty,
                  WeightPenalty{.grad = arena_.grad.view(),
                                .weight = arena_.master.view(),
                                .anchor = anchor_ ? anchor_.view() : TensorView{},
                                .segments = groups_[std::size_t(group)]},
                  ctx.stream);
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    if (anchor_) visit("anchor", anchor_);
  }
  std::size_t state_bytes() const override { return anchor_ ? anchor_.bytes() : 0; }
  std::string describe() const override {
    return cat(to_init_ ? "L2 Init, pulled to the first weights with strength " : "L2 penalty of strength ", strength_);
  }

 private:
  ParamArena& arena_;
  bool to_init_;
  double strength_ = 0.0;
  std::vector<std::vector<WeightSegment>> groups_;
  Tensor anchor_;
};

}  // namespace

std::unique_ptr<Intervention> make_l2(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Penalty>(spec, p, false);
}
std::unique_ptr<Intervention> make_l2_init(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Penalty>(spec, p, true);
}

}  // namespace eg
