// optim/muon.cpp - see muon.h. For every hidden matrix W [r,c], q, k and v each its own:
//
//   m = mu m + g;  u = g + mu m (Nesterov)         SGD's momentum: Muon's averages are (1 - mu) times these, and what
//   X = u / |u|                                    follows does not depend on the length of u
//   5 times: X = a X + b (X X^T) X + c (X X^T)^2 X  takes singular values from [0.003, 1] into [0.682, 1.202]
//   W = (1 - lr decay) W - lr sqrt(max(1, r/c)) X
//
// and AdamW for everything else: embeddings, head, norms, biases. Every part is a kernel that other methods use as well,
// and works in memory that was allocated at the start, so a step can be recorded.
#include "optim/muon.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "optim/arrow_targets.h"
#include "optim/hidden_matrices.h"
#include "optim/newton_schulz.h"
#include "optim/options_reader.h"
#include "optim/segments.h"
#include "optim/unit_steps.h"

namespace eg {

const char* const kMuonOptionsText =
    "momentum=0.95, nesterov=true, iterations=5, adam-lr (0.015 of the rate), beta1=0.9, beta2=0.95, eps=1e-10, "
    "weight-decay=0";

namespace {

constexpr int kAdamSlot = 0, kMuonSlot = 1, kDirectionSlot = 2;
constexpr OddPolynomial kQuintic{3.4445, -4.7750, 2.0315};
/// The published rates are 0.02 for hidden matrices and 3e-4 for the rest; --lr is the first, and keeps the ratio.
constexpr double kAdamShare = 3e-4 / 0.02;

class Muon final : public Optimizer {
 public:
  Muon(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) : arena_(*p.arena), lr_(lr) {
    OptionReader r(spec);
    mu_ = r.number("momentum", 0.95, 0.0, 0.999999);
    nesterov_ = r.flag("nesterov", true);
    iterations_ = int(r.integer("iterations", 5, 1, 100));
    adam_lr_ = r.number("adam-lr", kAdamShare * lr, 0.0, 1e6);
    beta1_ = r.number("beta1", 0.9, 0.0, 0.999999);
    beta2_ = r.number("beta2", 0.95, 0.0, 0.99999999);
    eps_ = r.number("eps", 1e-10, 1e-30, 1.0);
    weight_decay_ = r.number("weight-decay", weight_decay, 0.0, 1e6);
    r.finish();
    require_trainable_matrices(p, spec.name);
    matrices_ = hidden_matrices(p);
    std::vector<ArrowRun> runs;
    std::int64_t largest = 1, side = 1;
    for (const HiddenMatrix& m : matrices_) {
      runs.push_back({m.param->name, m.begin, m.size()});
      largest = std::max(largest, m.size()), side = std::max(side, std::min(m.rows, m.cols));
    }
    rest_ = without(segments_of(p, weight_decay_, kAdamSlot), runs);
    m_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), arena_.device);
    v_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), arena_.device);
    newton_schulz_.emplace(arena_.device, kQuintic, arena_.master.dtype(),
                           arena_.work ? arena_.work.dtype() : arena_.master.dtype(), largest, side);
  }
  std::string name() const override { return "muon"; }
  void prepare(StepContext& ctx) override {
    ctx.host_step->slot[kAdamSlot].lr = adam_lr_ * ctx.lr_factor;
    ctx.host_step->slot[kMuonSlot].lr = lr_ * ctx.lr_factor;
    ctx.host_step->slot[kDirectionSlot].lr = -1.0;
  }
  void step(StepContext& ctx) override {
    for (const HiddenMatrix& m : matrices_) update(m, ctx);
    const AdamUpdate adam{.weight = arena_.master.view(),
                          .grad = arena_.grad.view(),
                          .m = m_.view(),
                          .v = v_.view(),
                          .work = arena_.work ? arena_.work.view() : TensorView{},
                          .segments = rest_,
                          .step = ctx.device_step,
                          .beta1 = beta1_,
                          .beta2 = beta2_,
                          .eps = eps_};
    EVERGRAD_CALL(arena_.device, adam_update, adam, ctx.stream);
    adam_update_by_unit(arena_.device, adam, units_, weight_decay_, kAdamSlot, ctx.stream);
    EVERGRAD_CALL(arena_.device, step_finish,
                  StepFinish{.step = ctx.device_step, .slots = 1u << kAdamSlot | 1u << kDirectionSlot}, ctx.stream);
  }
  /// Only the biases are AdamW's: a step of Muon has no bias correction, so a new unit's rows need no count.
  void count_by_unit(const std::vector<Units>& units) override {
    units_ = units;
    for (Units& u : units_) {
      const auto taken = [&](const Param* p) {
        return std::any_of(matrices_.begin(), matrices_.end(), [&](const HiddenMatrix& m) { return m.param == p; });
      };
      if (taken(u.fc1_weight)) u.fc1_weight = nullptr;
      if (taken(u.fc2_weight)) u.fc2_weight = nullptr;
    }
    rest_ = without_units(rest_, units_);
  }
  void visit_moments(const std::function<void(Tensor&)>& visit) override { visit(m_), visit(v_); }
  void task_boundary(StepContext& ctx, bool keep_state) override {
    if (keep_state) return;
    m_.set_zero();
    v_.set_zero();
    ctx.host_step->slot[kAdamSlot].t = ctx.host_step->slot[kDirectionSlot].t = 0;
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("m", m_);
    visit("v", v_);
  }
  std::size_t state_bytes() const override { return m_.bytes() + v_.bytes(); }
  std::string describe() const override {
    return cat("Muon lr ", lr_, " on ", matrices_.size(), " hidden matrices, momentum ", mu_,
               nesterov_ ? " (Nesterov)" : "", ", ", iterations_, " Newton-Schulz iterations; AdamW lr ", adam_lr_,
               ", betas ", beta1_, " ", beta2_, ", eps ", eps_, " on the rest; weight decay ", weight_decay_);
  }

 private:
  void update(const HiddenMatrix& matrix, StepContext& ctx) {
    const std::int64_t n = matrix.size();
    const auto flat = [&](TensorView v) {
      if (v) v.shape = {n};
      return v;
    };
    const TensorView x = flat(newton_schulz_->input(matrix.rows, matrix.cols));
    // SGD with rate -1 from zero leaves the direction; a gradient that is not finite leaves the zero.
    EVERGRAD_CALL(arena_.device, fill, Fill{.x = x}, ctx.stream);
    const Segment from_zero{0, n, kDirectionSlot};
    EVERGRAD_CALL(arena_.device, sgd_update,
                  SgdUpdate{.weight = x,
                            .grad = flat(part_of(arena_.grad, matrix)),
                            .momentum = mu_ > 0.0 ? flat(part_of(m_, matrix)) : TensorView{},
                            .segments = {&from_zero, 1},
                            .step = ctx.device_step,
                            .mu = mu_,
                            .nesterov = nesterov_},
                  ctx.stream);
    const WeightSegment to_length_one{.begin = 0, .end = n, .bound = 1.0f};
    EVERGRAD_CALL(arena_.device, weight_project,
                  WeightProject{.weight = x, .segments = {&to_length_one, 1}, .step = ctx.device_step}, ctx.stream);
    const TensorView orthogonal = newton_schulz_->run(matrix.rows, matrix.cols, iterations_, ctx.stream);
    const float tall = float(std::sqrt(std::max(1.0, double(matrix.rows) / double(matrix.cols))));
    // The rate of decay is that of the weights, without the factor of tall matrices.
    const Segment apply{0, n, kMuonSlot, tall, matrix.param->decays ? float(weight_decay_ / double(tall)) : 0.0f};
    EVERGRAD_CALL(arena_.device, sgd_update,
                  SgdUpdate{.weight = flat(part_of(arena_.master, matrix)),
                            .grad = flat(orthogonal),
                            .work = flat(part_of(arena_.work, matrix)),
                            .segments = {&apply, 1},
                            .step = ctx.device_step,
                            .decoupled = true,
                            .clipped = true},
                  ctx.stream);
  }

  ParamArena& arena_;
  double lr_, mu_ = 0.0, adam_lr_ = 0.0, beta1_ = 0.0, beta2_ = 0.0, eps_ = 0.0, weight_decay_ = 0.0;
  bool nesterov_ = true;
  int iterations_ = 5;
  Tensor m_, v_;  // m_: momentum of the hidden matrices, AdamW's first moment elsewhere; v_: zero on hidden matrices
  std::vector<HiddenMatrix> matrices_;
  std::vector<Segment> rest_;
  std::vector<Units> units_;
  std::optional<NewtonSchulz> newton_schulz_;
};

}  // namespace

std::unique_ptr<Optimizer> make_muon(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) {
  return std::make_unique<Muon>(spec, p, lr, weight_decay);
}

}  // namespace eg
