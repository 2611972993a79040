// optim/upgd.cpp - see upgd.h. A weight that the loss needs is held still, one that it does not need moves, and is shaken
// until the loss finds a use for it: forgetting and loss of plasticity are met by one gate per weight.
//
//   u = beta u + (1 - beta) (-g w)                  the first-order change of the loss if w were set to zero, averaged
//   k = sigmoid(u / (1 - beta^t) / M), M = max u    over all weights, as released: M itself is not corrected
//   w = (1 - lr decay) w - lr (g + noise n) (1 - k), n standard normal
//
// A weight of average utility has k = 1/2. `protect=false` is the paper's non-protecting form, which gates the noise
// alone; without noise it is SGD.
#include "optim/upgd.h"

#include "optim/options_reader.h"

namespace eg {

const char* const kUpgdOptionsText = "beta=0.999, noise=1e-3, protect=true, weight-decay=1e-3";

namespace {

class Upgd final : public Optimizer {
 public:
  Upgd(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) : arena_(*p.arena), lr_(lr) {
    OptionReader r(spec);
    beta_ = r.number("beta", 0.999, 0.0, 0.99999999);
    noise_ = r.number("noise", 1e-3, 0.0, 1e3);
    protects_ = r.flag("protect", true);
    weight_decay_ = r.number("weight-decay", weight_decay, 0.0, 1e6);
    r.finish();
    utility_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), arena_.device);
    // One segment a parameter: segments_of swallows the padding between neighbours, which noise must not fill.
    for (const Param* param : p.list)
      if (!param->frozen)
        segments_.push_back(
            {param->offset, param->offset + param->size(), 0, 1.0f, param->decays ? float(weight_decay_) : 0.0f});
  }
  std::string name() const override { return "upgd"; }
  void prepare(StepContext& ctx) override { ctx.host_step->slot[0].lr = lr_ * ctx.lr_factor; }
  void step(StepContext& ctx) override {
    EVERGRAD_CALL(arena_.device, upgd_update,
                  UpgdUpdate{.weight = arena_.master.view(),
                             .grad = arena_.grad.view(),
                             .utility = utility_.view(),
                             .work = arena_.work ? arena_.work.view() : TensorView{},
                             .segments = segments_,
                             .step = ctx.device_step,
                             .beta = beta_,
                             .noise = noise_,
                             .protects = protects_,
                             .stream = key(0, "upgd", "noise").stream},
                  ctx.stream);
    EVERGRAD_CALL(arena_.device, step_finish, StepFinish{.step = ctx.device_step}, ctx.stream);
  }
  void visit_moments(const std::function<void(Tensor&)>& visit) override { visit(utility_); }
  void task_boundary(StepContext& ctx, bool keep_state) override {
    if (keep_state) return;
    utility_.set_zero();
    ctx.host_step->slot[0].t = 0;
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("utility", utility_);
  }
  std::size_t state_bytes() const override { return utility_.bytes(); }
  std::string describe() const override {
    return cat("UPGD lr ", lr_, ", utility decay ", beta_, ", noise ", noise_, protects_ ? "" : " (not protecting)",
               ", weight decay ", weight_decay_);
  }

 private:
  ParamArena& arena_;
  double lr_, beta_ = 0.0, noise_ = 0.0, weight_decay_ = 0.0;
  bool protects_ = true;
  Tensor utility_;
  std::vector<Segment> segments_;
};

}  // namespace

std::unique_ptr<Optimizer> make_upgd(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) {
  return std::make_unique<Upgd>(spec, p, lr, weight_decay);
}

}  // namespace eg
