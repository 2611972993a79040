// optim/plasticity/shrink_perturb.cpp - shrink and perturb (Ash & Adams 2020, arXiv:1910.08475), which the literature
// defines in at least six ways; a result must name its variant (methods.md B.7):
//
//   a  every step      L2 penalty `shrink` in the gradient, then w += N(0, noise^2)       (Dohare et al. 2024)
//   b  every step      w = (1 - shrink) w + noise w', w' drawn anew as at the start       (Kumar et al. 2023)
//   c  between tasks   w = (1 - shrink) w + shrink w0, w0 the first weights               (Han et al. 2026, FIRE)
//   d  every step      as a, the noise times the learning rate                            (Elsayed et al. 2024)
//   e  between tasks   w = (1 - shrink) w + N(0, noise^2)                                 (Shin et al. 2024, DASH)
//   f  every step      w = (1 - shrink) w + shrink w0                                     (Plasticine)
#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class ShrinkPerturb final : public Intervention {
 public:
  ShrinkPerturb(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    OptionReader r(spec);
    variant_ = "abcdef"[r.choice("variant", {"a", "b", "c", "d", "e", "f"}, 0)];
    const bool in_loss = variant_ == 'a' || variant_ == 'd';
    const double shrink = variant_ == 'b'   ? 1e-4
                          : variant_ == 'c' ? 0.8
                          : variant_ == 'e' ? 0.4
                          : variant_ == 'f' ? 1e-6
                                            : 5e-4;
    shrink_ = r.number("shrink", shrink, 0.0, in_loss ? 1e6 : 1.0);
    const bool noisy = variant_ != 'c' && variant_ != 'f';
    if (noisy) noise_ = r.number("noise", variant_ == 'b' || variant_ == 'e' ? 1e-2 : 1e-5, 0.0, 1e3);
    const bool norms = r.flag("norms", false);
    r.finish();
    const auto fill = [&](const Param& param, WeightSegment& s) {
      if (in_loss) {
        s.pull = float(shrink_), s.noise = float(noise_);
      } else {
        s.keep = float(1.0 - shrink_);
        if (anchored()) s.pull = float(shrink_);
        if (noisy) s.noise = float(noise_);
        if (variant_ == 'b') {
          const Moments m = moments_of(param.init);
          s.noise = float(noise_ * m.stddev), s.shift = float(noise_ * m.mean);
        }
      }
      return norms || param.role != Role::norm;
    };
    segments_ = weight_segments(p, fill);
    if (in_loss) penalties_ = weight_segments_by_group(p, fill);
    if (anchored()) anchor_ = arena_.master.clone();
  }
  std::string name() const override { return "shrink-perturb"; }
  Stage stage() const override { return Stage::noise; }
  void penalty(int group, StepContext& ctx) override {
    if (penalties_.empty() || shrink_ == 0.0) return;
    EVERGRAD_CALL(
        arena_.device, weight_penalty,
        WeightPenalty{
            .grad = arena_.grad.view(), .weight = arena_.master.view(), .segments = penalties_[std::size_t(group)]},
        ctx.stream);
  }
  void after_update(StepContext& ctx) override {
    if (!between_tasks()) perturb(ctx);
  }
  void task_boundary(StepContext& ctx) override {
    if (!between_tasks()) return;
    perturb(ctx);
    ctx.weights_changed = true;
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    if (anchor_) visit("anchor", anchor_);
  }
  std::size_t state_bytes() const override { return anchor_ ? anchor_.bytes() : 0; }
  std::string describe() const override {
    return cat("shrink and perturb, variant ", variant_, ": shrink ", shrink_, ", noise ", noise_,
               between_tasks() ? ", between tasks" : ", every step");
  }

 private:
  bool anchored() const { return variant_ == 'c' || variant_ == 'f'; }
  bool between_tasks() const { return variant_ == 'c' || variant_ == 'e'; }
  void perturb(StepContext& ctx) {
    const bool in_loss = variant_ == 'a' || variant_ == 'd';
    if (in_loss ? noise_ == 0.0 : shrink_ == 0.0 && noise_ == 0.0) return;
    EVERGRAD_CALL(arena_.device, weight_perturb,
                  WeightPerturb{.weight = arena_.master.view(),
                                .anchor = anchor_ ? anchor_.view() : TensorView{},
                                .work = work_of(arena_),
                                .segments = segments_,
                                .step = ctx.device_step,
                                .stream = key(0, "shrink-perturb", "noise").stream,
                                .noise_slot = variant_ == 'd' ? 0 : -1,
                                .even_if_skipped = between_tasks()},
                  ctx.stream);
  }

  ParamArena& arena_;
  char variant_ = 'a';
  double shrink_ = 0.0, noise_ = 0.0;
  std::vector<WeightSegment> segments_;
  std::vector<std::vector<WeightSegment>> penalties_;
  Tensor anchor_;
};

}  // namespace

std::unique_ptr<Intervention> make_shrink_perturb(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<ShrinkPerturb>(spec, p);
}

}  // namespace eg
