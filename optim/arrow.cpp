// optim/arrow.cpp - see arrow.h. The passes over the parameters are kernels (engine/kernels_arrow.h); here stands which
// parameters form a group, and when each pass runs:
//
//   on_gradient_final(b)   observe every target of block b: the raw gradient enters the spare slot of the ring. On a
//                          stream of its own, beside the rest of the backward pass
//   step                   per group: solve, base moments, update; then the base optimizer on everything else
//
// With update=backward a group's solve and update follow its last observation at once, while the backward pass of the blocks
// below goes on. That leaves out what needs all gradients first: clipping to the global norm, which is refused, and the promise
// that a step with a gradient that is not finite changes nothing.
#include "optim/arrow.h"

#include <algorithm>
#include <map>
#include <span>
#include <vector>

#include "engine/side_stream.h"
#include "optim/arena_pieces.h"
#include "optim/arrow_division.h"
#include "optim/arrow_options.h"
#include "optim/arrow_report.h"
#include "optim/arrow_targets.h"
#include "optim/segments.h"
#include "optim/unit_steps.h"

namespace eg {
namespace {

constexpr int kBaseSlot = 0, kArrowSlot = 1;

/// What is observed of a target at once, and may be a piece of it (arrow_division.h).
struct Observed {
  TensorView grad, momentum;
  std::int64_t begin = 0;  // of what this rank keeps of the target
  bool summed = true;
};

/// Targets that share a window, with everything a solve needs. Device memory throughout.
struct Group {
  std::string name;
  std::vector<ArrowRun> targets;
  std::vector<Tensor> rings;    // one per target, [W+1, P]
  std::vector<Tensor> momenta;  // one per target, [P], or none
  Tensor grams, dots, state;
  Tensor all_grams, all_dots;                   // summed over ranks; where these do not share sums the same tensors
  std::vector<std::vector<Observed>> observed;  // per target
  std::vector<ArrowTarget> targets_here;        // of which this rank keeps something
  std::vector<ArrowTarget> base_summed, base_others;  // pieces of these: those that this rank adds up, and the rest
  std::int64_t parameters = 0;
  int first_block = 0;  // whose gradient is final last
};

std::string ring_name(const Group& g, const ArrowRun& t) { return cat(g.name, ".ring.", t.name); }
std::string momentum_name(const Group& g, const ArrowRun& t) { return cat(g.name, ".momentum.", t.name); }

class Arrow final : public Optimizer {
 public:
  Arrow(ArrowSettings settings, const Parameters& p, double lr);
  std::string name() const override { return s_.norm_control ? "norm-control" : "arrow"; }
  void prepare(StepContext& ctx) override;
  void on_gradient_final(int group, StepContext& ctx) override;
  void step(StepContext& ctx) override;
  void count_by_unit(const std::vector<Units>& units) override;
  void visit_moments(const std::function<void(Tensor&)>& visit) override {
    if (m_) visit(m_), visit(v_);
  }
  void units_replaced(int block) override;
  void task_boundary(StepContext& ctx, bool keep_state) override;
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override;
  std::size_t state_bytes() const override;
  std::map<std::string, double> scalars() override;
  std::string describe() const override;
  std::optional<TensorPart> kept_part(const std::string& name) const override;
  void state_restored() override;

 private:
  std::int64_t sums_of(const Group& g) const;
  void build_group(Group& g, std::int64_t at);
  void observe(Group& g, std::size_t index, Stream stream);
  void solve(std::span<const Group> groups, const StepContext& ctx, Stream stream);
  void advance_base(const Group& g, const StepContext& ctx, Stream stream);
  void update_group(Group& g, const StepContext& ctx, Stream stream);
  void add_up_windows(Stream stream);
  void add_up_base_norms(Stream stream);
  void update_rest(StepContext& ctx);
  ArrowState* state_of(const Group& g) const { return static_cast<ArrowState*>(g.state.data()); }
  ArrowState read_state(const Group& g) const;
  void write_state(Group& g, const ArrowState& state) const;
  bool general_form() const;
  bool needs_base() const;
  DType ring_type() const { return s_.bf16_ring ? DType::bf16 : arena_.grad.dtype(); }

  ArrowSettings s_;
  ParamArena& arena_;
  double lr_;
  Device device_;
  std::vector<Group> groups_;
  std::vector<ArenaPiece> rest_;  // what is left to the base optimizer
  std::vector<Units> units_;
  const Division* const division_;  // or null
  const Division* const summed_;    // or null: Parameters::sums
  Tensor m_, v_;                    // of everything that this rank updates, with base=adamw
  Tensor sums_, all_sums_;          // every group's grams and dots; summed over ranks
  Tensor base_norms_;               // f64 [groups], on their way between ranks
  SideStream observing_;
};

Arrow::Arrow(ArrowSettings settings, const Parameters& p, double lr)
    : s_(std::move(settings)),
      arena_(*p.arena),
      lr_(lr),
      device_(p.arena->device),
      division_(p.division),
      summed_(s_.in_backward ? nullptr : p.sums),
      observing_(p.arena->device) {
  check(!division_ || !s_.in_backward, Kind::usage, [&] {
    return cat(name(),
               ": update=backward does not go with --zero 1, whose sums of Gram rows would cross those of gradients");
  });
  const std::vector<ArrowRun> targets = arrow_runs(s_, p);
  if (s_.adamw_base) { m_ = arena_state(p), v_ = arena_state(p); }
  for (const ArrowRun& t : targets) {
    const std::string name = arrow_group(s_, t);
    auto g = std::find_if(groups_.begin(), groups_.end(), [&](const Group& x) { return x.name == name; });
    if (g == groups_.end()) g = groups_.insert(g, Group{.name = name});
    g->targets.push_back(t);
  }
  std::int64_t numbers = 0;
  for (const Group& g : groups_) numbers += sums_of(g);
  all_sums_ = sums_ = Tensor::zeros({numbers}, DType::f64, device_);
  if (summed_)
    all_sums_ = sums_.clone(), base_norms_ = Tensor::zeros({std::int64_t(groups_.size())}, DType::f64, device_);
  numbers = 0;
  for (Group& g : groups_) build_group(g, numbers), numbers += sums_of(g);
  rest_ = arena_pieces(p, without(segments_of(p, s_.weight_decay), targets));
}

/// The closed form needs the gradient itself as a column; a rounded ring or a preconditioned momentum is not one.
bool Arrow::general_form() const {
  return s_.precondition_momentum || (s_.bf16_ring && arena_.grad.dtype() != DType::bf16);
}

/// Whether the base optimizer's moments are kept for ARROW's own targets too.
bool Arrow::needs_base() const {
  const bool warms = s_.solve.warmup == ArrowWarmup::base && s_.solve.warmup_steps > 0;
  return s_.adamw_base && (warms || s_.graft == ArrowGraft::adamw || s_.norm_control);
}

/// Numbers that a group's window is summed up in: they lie together, so that ranks add up those of all groups in one message.
std::int64_t Arrow::sums_of(const Group& g) const {
  const std::int64_t slots = s_.solve.window + 1;
  return std::int64_t(g.targets.size()) * (slots * slots + (general_form() ? slots + 3 : 0));
}

void Arrow::build_group(Group& g, std::int64_t at) {
  const std::int64_t slots = s_.solve.window + 1, tensors = std::int64_t(g.targets.size());
  const auto grams = [&](const Tensor& sums) {
    return sums.slice(at, tensors * slots * slots).reshape({tensors, slots, slots});
  };
  const auto dots = [&](const Tensor& sums) {
    if (!general_form()) return Tensor{};
    return sums.slice(at + tensors * slots * slots, tensors * (slots + 3)).reshape({tensors, slots + 3});
  };
  g.grams = grams(sums_), g.dots = dots(sums_), g.all_grams = grams(all_sums_), g.all_dots = dots(all_sums_);
  g.state = Tensor::zeros({std::int64_t(sizeof(ArrowState))}, DType::u8, device_);
  write_state(g, {});
  for (const ArrowRun& target : g.targets) {
    const Division::Piece t = own_run(division_, target);
    g.rings.push_back(Tensor::zeros({slots, t.size}, ring_type(), device_));
    if (s_.momentum > 0.0) g.momenta.push_back(Tensor::zeros({t.size}, arena_.master_type(), device_));
    const auto base_of = [&](const Division::Piece& piece) {
      return ArrowTarget{.weight = ArenaPiece{piece.begin, piece.size, piece.own, {}}.master(arena_),
                         .grad = ArenaPiece::view(arena_.grad, piece.begin, piece.size),
                         .m = needs_base() ? ArenaPiece::view(m_, piece.own, piece.size) : TensorView{},
                         .v = needs_base() ? ArenaPiece::view(v_, piece.own, piece.size) : TensorView{}};
    };
    ArrowTarget whole = base_of(t);
    whole.work = ArenaPiece::view(arena_.work, t.begin, t.size), whole.ring = g.rings.back().view();
    if (s_.momentum > 0.0) whole.momentum = g.momenta.back().view();
    whole.weight_decay = target.decays ? float(s_.weight_decay) : 0.0f;
    if (t.size) g.targets_here.push_back(whole);
    g.observed.emplace_back();
    for (const auto& [piece, summed] : stretches_of(summed_, t)) {
      if (piece.size) (summed ? g.base_summed : g.base_others).push_back(base_of(piece));
      // Where a rank has nothing to add, its row of the Gram matrix still becomes zero.
      if (!piece.size && !summed) continue;
      const std::int64_t begin = piece.begin - t.begin;
      g.observed.back().push_back(
          {.grad = ArenaPiece::view(arena_.grad, piece.begin, piece.size),
           .momentum = s_.momentum > 0.0 ? ArenaPiece::view(g.momenta.back(), begin, piece.size) : TensorView{},
           .begin = begin,
           .summed = summed});
    }
    g.parameters += target.size;
  }
  const auto below = [](const ArrowRun& a, const ArrowRun& b) { return a.block < b.block; };
  g.first_block = std::min_element(g.targets.begin(), g.targets.end(), below)->block;
}

void Arrow::prepare(StepContext& ctx) {
  ctx.host_step->slot[kBaseSlot].lr = lr_ * ctx.lr_factor;
  ctx.host_step->slot[kArrowSlot].lr = (s_.lr < 0.0 ? lr_ : s_.lr) * ctx.lr_factor;
  if (!s_.in_backward) return;
  check(ctx.host_step->max_norm <= 0.0, Kind::usage, [&] {
    return cat(name(), ": update=backward cannot clip to the global norm ", ctx.host_step->max_norm,
               ", which is known only after the backward pass; use --clip-norm 0 or update=step");
  });
  ctx.host_step->finite = 1, ctx.host_step->clip_scale = 1.0;  // what the last step found is not about this one
}

void Arrow::observe(Group& g, std::size_t index, Stream stream) {
  const std::int64_t slots = s_.solve.window + 1;
  for (const Observed& o : g.observed[index]) {
    ArrowObserve a{.grad = o.grad, .ring = g.rings[index].view(), .begin = o.begin, .state = state_of(g)};
    if (o.summed) {
      a.gram = {g.grams.data_as<double>() + std::int64_t(index) * slots * slots, DType::f64, {slots, slots}};
      if (g.dots) a.dots = {g.dots.data_as<double>() + std::int64_t(index) * (slots + 3), DType::f64, {slots + 3}};
      if (s_.precondition_momentum) a.vector = o.momentum;
    }
    EVERGRAD_CALL(device_, arrow_observe, a, stream);
  }
}

void Arrow::on_gradient_final(int block, StepContext& ctx) {
  Stream side;
  bool forked = false;
  for (Group& g : groups_) {
    for (std::size_t i = 0; i < g.targets.size(); ++i) {
      if (g.targets[i].block != block) continue;
      if (!forked) side = observing_.fork(ctx.stream), forked = true;
      observe(g, i, side);
    }
    if (s_.in_backward && g.first_block == block) solve({&g, 1}, ctx, side), update_group(g, ctx, side);
  }
}

/// The coefficients of the groups' steps, and the base's direction where something is measured by it.
void Arrow::solve(std::span<const Group> groups, const StepContext& ctx, Stream stream) {
  std::vector<ArrowSystem> systems;
  for (const Group& g : groups)
    systems.push_back({.grams = g.all_grams.view(),
                       .dots = g.all_dots ? g.all_dots.view() : TensorView{},
                       .parameters = g.parameters,
                       .state = state_of(g)});
  EVERGRAD_CALL(device_, arrow_solve,
                ArrowSolve{.systems = systems,
                           .vector_mu = s_.precondition_momentum ? s_.momentum : 0.0,
                           .options = s_.solve,
                           .step = ctx.device_step},
                stream);
  if (needs_base())
    for (const Group& g : groups) advance_base(g, ctx, stream);
}

void Arrow::advance_base(const Group& g, const StepContext& ctx, Stream stream) {
  for (const auto* const targets : {&g.base_others, &g.base_summed})  // the norm is the last call's
    if (!targets->empty() || targets == &g.base_summed)
      EVERGRAD_CALL(device_, arrow_base,
                    ArrowBase{.targets = *targets,
                              .step = ctx.device_step,
                              .state = state_of(g),
                              .slot = kArrowSlot,
                              .beta1 = s_.beta1,
                              .beta2 = s_.beta2,
                              .eps = s_.eps},
                    stream);
}

void Arrow::update_group(Group& g, const StepContext& ctx, Stream stream) {
  if (g.targets_here.empty()) return;
  EVERGRAD_CALL(device_, arrow_update,
                ArrowUpdate{.targets = g.targets_here,
                            .step = ctx.device_step,
                            .state = state_of(g),
                            .slot = kArrowSlot,
                            .base_slot = kBaseSlot,
                            .window = s_.solve.window,
                            .graft = s_.graft,
                            .mu = s_.momentum,
                            .precondition_momentum = s_.precondition_momentum,
                            .norm_control = s_.norm_control,
                            .beta1 = s_.beta1,
                            .beta2 = s_.beta2,
                            .eps = s_.eps},
                stream);
}

void Arrow::update_rest(StepContext& ctx) {
  for (const ArenaPiece& piece : rest_) {
    const TensorView weight = piece.master(arena_), grad = piece.of(arena_.grad), work = piece.of(arena_.work);
    if (s_.adamw_base) {
      const AdamUpdate update{.weight = weight,
                              .grad = grad,
                              .m = piece.state(m_),
                              .v = piece.state(v_),
                              .work = work,
                              .segments = piece.segments,
                              .step = ctx.device_step,
                              .beta1 = s_.beta1,
                              .beta2 = s_.beta2,
                              .eps = s_.eps,
                              .decoupled = true};
      EVERGRAD_CALL(device_, adam_update, update, ctx.stream);
      adam_update_by_unit(device_, update, units_, s_.weight_decay, kBaseSlot, ctx.stream);
    } else {
      EVERGRAD_CALL(device_, sgd_update,
                    SgdUpdate{.weight = weight,
                              .grad = grad,
                              .work = work,
                              .segments = piece.segments,
                              .step = ctx.device_step,
                              .decoupled = true},
                    ctx.stream);
    }
  }
}

/// Units whose matrices ARROW itself updates are not counted by unit: its steps have no bias correction.
void Arrow::count_by_unit(const std::vector<Units>& units) {
  const bool mlp = std::any_of(groups_.begin(), groups_.end(), [](const Group& g) {
    return std::any_of(g.targets.begin(), g.targets.end(), [](const ArrowRun& t) { return t.module >= 4; });
  });
  if (mlp || !s_.adamw_base) return;
  units_ = units;
  rest_[0].segments = without_units(rest_[0].segments, units);  // never with a division: there is one piece
}

/// Columns of the window that hold a block's MLP refer to weights that are gone: the group begins anew.
void Arrow::units_replaced(int block) {
  for (Group& g : groups_) {
    const bool concerned = std::any_of(g.targets.begin(), g.targets.end(),
                                       [&](const ArrowRun& t) { return t.block == block && t.module >= 4; });
    if (!concerned) continue;
    for (const Tensor& momentum : g.momenta) momentum.set_zero();
    ArrowState s = read_state(g);
    s.filled = s.next = s.committed = s.t = 0;
    write_state(g, s);
  }
}

/// What ranks have of the inner products of their elements becomes what all have.
void Arrow::add_up_windows(Stream stream) {
  runtime(device_).copy_within(all_sums_.data(), sums_.data(), sums_.bytes(), stream);
  summed_->ranks->all_reduce(all_sums_.data(), all_sums_.size(), DType::f64, stream);
}

/// The same for the norms of the base's direction, which lie in the groups' states.
void Arrow::add_up_base_norms(Stream stream) {
  double* const norms = base_norms_.data_as<double>();
  const auto copy = [&](double* to, const double* from) {
    runtime(device_).copy_within(to, from, sizeof(double), stream);
  };
  for (std::size_t i = 0; i < groups_.size(); ++i) copy(norms + i, &state_of(groups_[i])->norm_sq_base);
  summed_->ranks->all_reduce(norms, base_norms_.size(), DType::f64, stream);
  for (std::size_t i = 0; i < groups_.size(); ++i) copy(&state_of(groups_[i])->norm_sq_base, norms + i);
}

void Arrow::step(StepContext& ctx) {
  observing_.join(ctx.stream);
  if (!s_.in_backward) {
    if (summed_) add_up_windows(ctx.stream);
    solve(groups_, ctx, ctx.stream);
    if (summed_ && needs_base()) add_up_base_norms(ctx.stream);
    for (Group& g : groups_) update_group(g, ctx, ctx.stream);
  }
  update_rest(ctx);
  EVERGRAD_CALL(device_, step_finish, StepFinish{.step = ctx.device_step, .slots = 1u << kBaseSlot | 1u << kArrowSlot},
                ctx.stream);
}

ArrowState Arrow::read_state(const Group& g) const {
  ArrowState host;
  runtime(device_).copy_to_host(&host, g.state.data(), sizeof host, {});
  runtime(device_).synchronize({});
  return host;
}

void Arrow::write_state(Group& g, const ArrowState& state) const {
  runtime(device_).copy_from_host(g.state.data(), &state, sizeof state, {});
  runtime(device_).synchronize({});
}

void Arrow::task_boundary(StepContext& ctx, bool keep_state) {
  if (!keep_state) {
    for (const Tensor* const t : {&m_, &v_})
      if (*t) t->set_zero();
    ctx.host_step->slot[kBaseSlot].t = ctx.host_step->slot[kArrowSlot].t = 0;
  }
  for (Group& g : groups_) {
    ArrowState s = read_state(g);
    if (!keep_state) {
      for (const Tensor& momentum : g.momenta) momentum.set_zero();
      s.norm_sq_vector = 0.0;
      for (double& p : s.projection) p = 0.0;
    }
    if (s_.boundary != ArrowBoundary::keep) s.filled = s.next = s.committed = 0;
    if (s_.boundary == ArrowBoundary::clear) s.t = 0, s.largest_diagonal = 0.0;
    write_state(g, s);
  }
}

void Arrow::visit_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  if (m_) visit("m", m_), visit("v", v_);
  for (Group& g : groups_) {
    visit(cat(g.name, ".state"), g.state);
    visit(cat(g.name, ".gram"), g.all_grams);
    for (std::size_t i = 0; i < g.rings.size(); ++i) visit(ring_name(g, g.targets[i]), g.rings[i]);
    for (std::size_t i = 0; i < g.momenta.size(); ++i) visit(momentum_name(g, g.targets[i]), g.momenta[i]);
  }
}

std::optional<TensorPart> Arrow::kept_part(const std::string& name) const {
  if (!division_) return std::nullopt;
  if (name == "m" || name == "v") return division_->part();
  for (const Group& g : groups_)
    for (const ArrowRun& t : g.targets) {
      if (name == ring_name(g, t)) return part_of_run(*division_, t, s_.solve.window + 1);
      if (name == momentum_name(g, t)) return part_of_run(*division_, t, 0);
    }
  return std::nullopt;
}

/// Whole in a checkpoint is the Gram matrix, because it is small; read back, the first rank has all of it. Its sum over ranks
/// is then what it was, bit for bit, and so are later ones: who adds to a row replaces it first.
void Arrow::state_restored() {
  if (!summed_) return;
  for (const Group& g : groups_) summed_->ranks->rank() == 0 ? g.grams.copy_from(g.all_grams) : g.grams.set_zero();
}

std::size_t Arrow::state_bytes() const {
  std::size_t bytes = m_ ? m_.bytes() + v_.bytes() : 0;
  for (const Group& g : groups_) {
    bytes += g.grams.bytes() + g.state.bytes();
    for (const Tensor& r : g.rings) bytes += r.bytes();
    for (const Tensor& m : g.momenta) bytes += m.bytes();
  }
  return bytes;
}

std::map<std::string, double> Arrow::scalars() {
  std::vector<ArrowState> states;
  for (const Group& g : groups_) states.push_back(read_state(g));
  return arrow_scalars(states, s_.solve.window);
}

std::string Arrow::describe() const {
  ArrowSize size{.groups = groups_.size(),
                 .needs_base = needs_base(),
                 .ring = ring_type(),
                 .grad = arena_.grad.dtype(),
                 .master = arena_.master_type()};
  if (arena_.work) size.work = arena_.work.dtype();
  for (const Group& g : groups_) size.tensors += g.targets.size(), size.parameters += g.parameters;
  return describe_arrow(s_, size, lr_);
}

}  // namespace

std::unique_ptr<Optimizer> make_arrow(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) {
  return std::make_unique<Arrow>(read_arrow_settings(spec, p.depth, weight_decay), p, lr);
}

}  // namespace eg
