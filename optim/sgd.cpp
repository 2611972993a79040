// optim/sgd.cpp - see sgd.h. d = g (+ decay w); b = mu b + (1 - dampening) d, first step b = d; w -= lr (b, or d + mu
// b).
#include "optim/sgd.h"

#include "optim/arena_pieces.h"
#include "optim/options_reader.h"
#include "optim/segments.h"

namespace eg {

const char* const kSgdOptionsText = "momentum=0.9, dampening=0, nesterov, decoupled, weight-decay=5e-4";

namespace {

class Sgd final : public Optimizer {
 public:
  Sgd(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) : arena_(*p.arena), lr_(lr) {
    OptionReader r(spec);
    mu_ = r.number("momentum", 0.9, 0.0, 0.999999);
    dampening_ = r.number("dampening", 0.0, 0.0, 1.0);
    nesterov_ = r.flag("nesterov", false);
    decoupled_ = r.flag("decoupled", false);
    weight_decay_ = r.number("weight-decay", weight_decay, 0.0, 1e6);
    r.finish();
    if (mu_ > 0.0) momentum_ = arena_state(p);
    pieces_ = arena_pieces(p, segments_of(p, weight_decay_)), kept_ = arena_part(p);
  }
  std::string name() const override { return "sgd"; }
  void prepare(StepContext& ctx) override { ctx.host_step->slot[0].lr = lr_ * ctx.lr_factor; }
  void step(StepContext& ctx) override {
    for (const ArenaPiece& piece : pieces_)
      EVERGRAD_CALL(arena_.device, sgd_update,
                    SgdUpdate{.weight = piece.master(arena_),
                              .grad = piece.of(arena_.grad),
                              .momentum = piece.state(momentum_),
                              .work = piece.of(arena_.work),
                              .segments = piece.segments,
                              .step = ctx.device_step,
                              .mu = mu_,
                              .dampening = dampening_,
                              .nesterov = nesterov_,
                              .decoupled = decoupled_},
                    ctx.stream);
    EVERGRAD_CALL(arena_.device, step_finish, StepFinish{.step = ctx.device_step}, ctx.stream);
  }
  void visit_moments(const std::function<void(Tensor&)>& visit) override {
    if (momentum_) visit(momentum_);
  }
  void task_boundary(StepContext& ctx, bool keep_state) override {
    if (keep_state) return;
    if (momentum_) momentum_.set_zero();
    ctx.host_step->slot[0].t = 0;
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    if (momentum_) visit("momentum", momentum_);
  }
  std::optional<TensorPart> kept_part(const std::string&) const override { return kept_; }
  std::size_t state_bytes() const override { return momentum_ ? momentum_.bytes() : 0; }
  std::string describe() const override {
    return cat("SGD lr ", lr_, ", momentum ", mu_, nesterov_ ? " (Nesterov)" : "", ", ",
               decoupled_ ? "decoupled" : "coupled", " weight decay ", weight_decay_);
  }

 private:
  ParamArena& arena_;
  double lr_, mu_ = 0.0, dampening_ = 0.0, weight_decay_ = 0.0;
  bool nesterov_ = false, decoupled_ = false;
  Tensor momentum_;
  std::vector<ArenaPiece> pieces_;
  std::optional<TensorPart> kept_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) {
  return std::make_unique<Sgd>(spec, p, lr, weight_decay);
}

}  // namespace eg
