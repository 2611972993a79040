// optim/plasticity/trac.cpp - TRAC (Muppidi et al. 2024, arXiv:2405.16642): the base's steps add up to a way from a
// reference point, and a scale that needs no tuning decides how much of the way is gone.
//
//   accumulator (default)  the way is kept in fp32, so that neither rounding nor a scale of zero loses it
//   literal                the released form: the way is (w - reference) / (S + 1e-8). It can freeze: once S <= 0 all
//                          weights lie on the reference, h is 0 and S never moves (methods.md A.4.2)
#include "engine/trac_tune.h"

#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Trac final : public Intervention {
 public:
  Trac(const MethodSpec& spec, const Parameters& p) : params_(p), arena_(*p.arena) {
    OptionReader r(spec);
    literal_ = r.choice("mode", {"accumulator", "literal"}, 0) == 1;
    rebase_ = r.choice("boundary", {"keep", "rebase"}, 0) == 1;
    r.finish();
    anchor_ = arena_.master.clone();
    before_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), arena_.device);
    if (!literal_) way_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), arena_.device);
    state_ = Tensor::zeros({kTracState}, DType::f64, arena_.device);
    begin();
  }
  std::string name() const override { return "trac"; }
  Stage stage() const override { return Stage::scaling; }
  bool rewrites_weights() const override { return false; }
  void before_update(StepContext& ctx) override {
    EVERGRAD_CALL(arena_.device, trac_measure,
                  TracMeasure{.grad = arena_.grad.view(),
                              .weight = arena_.master.view(),
                              .anchor = anchor_.view(),
                              .way = way_ ? way_.view() : TensorView{},
                              .state = state_.view(),
                              .step = ctx.device_step},
                  ctx.stream);
    runtime(arena_.device).copy_within(before_.data(), arena_.master.data(), arena_.master.bytes(), ctx.stream);
  }
  void after_update(StepContext& ctx) override {
    EVERGRAD_CALL(arena_.device, trac_apply,
                  TracApply{.weight = arena_.master.view(),
                            .work = work_of(arena_),
                            .before = before_.view(),
                            .anchor = anchor_.view(),
                            .way = way_ ? way_.view() : TensorView{},
                            .state = state_.view(),
                            .step = ctx.device_step},
                  ctx.stream);
  }
  void task_boundary(StepContext& ctx) override {
    if (ctx.head_changed) begin_head();
    if (!rebase_) return;
    anchor_.copy_from(arena_.master);
    if (way_) way_.set_zero();
    begin();
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("anchor", anchor_), visit("state", state_);
    if (way_) visit("way", way_);
  }
  std::size_t state_bytes() const override { return anchor_.bytes() + state_.bytes() + (way_ ? way_.bytes() : 0); }
  std::map<std::string, double> scalars() override {
    const std::vector<double> s = state_.to_host();
    return {{"scale", s[kTracScale]}, {"h", s[kTracH]}, {"cut", s[kTracCut]}, {"frozen", s[kTracScale] <= 0.0}};
  }
  std::string describe() const override {
    return cat("steps scaled by TRAC, ", literal_ ? "literal form" : "way accumulated", ", reference ",
               rebase_ ? "moved" : "kept", " at a new task");
  }

 private:
  void begin() {
    std::vector<double> s(kTracState, 0.0);
    for (int j = 0; j < kTracTuners; ++j) s[std::size_t(kTracSigma + j)] = kTracStart;
    state_.copy_from(Tensor::from(s, {kTracState}, DType::f64, arena_.device));
  }

  /// A new head starts its own way; left alone, the next step would put the old one back.
  void begin_head() {
    for (const Param* p : params_.list) {
      if (p->module != Module::head) continue;
      anchor_.slice(p->offset, p->size()).copy_from(p->master.reshape({p->size()}));
      if (way_) way_.slice(p->offset, p->size()).set_zero();
    }
  }

  Parameters params_;
  ParamArena& arena_;
  bool literal_ = false, rebase_ = false;
  Tensor anchor_, before_, way_, state_;
};

}  // namespace

std::unique_ptr<Intervention> make_trac(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Trac>(spec, p);
}

}  // namespace eg
