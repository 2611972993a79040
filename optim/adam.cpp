// optim/adam.cpp - see adam.h. m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr m_hat / (sqrt(v_hat) + eps).
#include "optim/adam.h"

#include "optim/arena_pieces.h"
#include "optim/options_reader.h"
#include "optim/segments.h"
#include "optim/unit_steps.h"

namespace eg {

const char* const kAdamOptionsText = "beta1=0.9, beta2=0.999, eps=1e-8, weight-decay (adamw 0.05, adam 0)";

namespace {

class Adam final : public Optimizer {
 public:
  Adam(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay)
      : arena_(*p.arena), lr_(lr), decoupled_(spec.name == "adamw") {
    OptionReader r(spec);
    beta1_ = r.number("beta1", 0.9, 0.0, 0.999999);
    beta2_ = r.number("beta2", 0.999, 0.0, 0.99999999);
    eps_ = r.number("eps", 1e-8, 1e-30, 1.0);
    weight_decay_ = r.number("weight-decay", weight_decay, 0.0, 1e6);
    r.finish();
    m_ = arena_state(p), v_ = arena_state(p);
    pieces_ = arena_pieces(p, segments_of(p, weight_decay_)), kept_ = arena_part(p);
  }
  std::string name() const override { return decoupled_ ? "adamw" : "adam"; }
  void prepare(StepContext& ctx) override { ctx.host_step->slot[0].lr = lr_ * ctx.lr_factor; }
  void step(StepContext& ctx) override {
    for (const ArenaPiece& piece : pieces_) {
      const AdamUpdate update{.weight = piece.master(arena_),
                              .grad = piece.of(arena_.grad),
                              .m = piece.state(m_),
                              .v = piece.state(v_),
                              .work = piece.of(arena_.work),
                              .segments = piece.segments,
                              .step = ctx.device_step,
                              .beta1 = beta1_,
                              .beta2 = beta2_,
                              .eps = eps_,
                              .decoupled = decoupled_};
      EVERGRAD_CALL(arena_.device, adam_update, update, ctx.stream);
      adam_update_by_unit(arena_.device, update, units_, weight_decay_, 0, ctx.stream);
    }
    EVERGRAD_CALL(arena_.device, step_finish, StepFinish{.step = ctx.device_step}, ctx.stream);
  }
  void count_by_unit(const std::vector<Units>& units) override {
    units_ = units;
    pieces_[0].segments = without_units(pieces_[0].segments, units);  // never with a division: there is one piece
  }
  void visit_moments(const std::function<void(Tensor&)>& visit) override { visit(m_), visit(v_); }
  void task_boundary(StepContext& ctx, bool keep_state) override {
    if (keep_state) return;
    m_.set_zero();
    v_.set_zero();
    ctx.host_step->slot[0].t = 0;
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("m", m_);
    visit("v", v_);
  }
  std::optional<TensorPart> kept_part(const std::string&) const override { return kept_; }
  std::size_t state_bytes() const override { return m_.bytes() + v_.bytes(); }
  std::string describe() const override {
    return cat(decoupled_ ? "AdamW" : "Adam", " lr ", lr_, ", betas ", beta1_, " ", beta2_, ", eps ", eps_,
               ", weight decay ", weight_decay_);
  }

 private:
  ParamArena& arena_;
  double lr_;
  bool decoupled_;
  double beta1_ = 0.9, beta2_ = 0.999, eps_ = 1e-8, weight_decay_ = 0.0;
  Tensor m_, v_;
  std::vector<ArenaPiece> pieces_;
  std::optional<TensorPart> kept_;
  std::vector<Units> units_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adam(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) {
  return std::make_unique<Adam>(spec, p, lr, weight_decay);
}

}  // namespace eg
