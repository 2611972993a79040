// optim/arrow.cpp - see arrow.h. The passes over the parameters are kernels (engine/kernels_arrow.h); here stands which
// parameters form a group, and when each pass runs:
//
//   on_gradient_final(b)   observe every target of block b: the raw gradient enters the spare slot of the ring
//   step                   per group: solve, base moments, update; then the base optimizer on everything else
#include "optim/arrow.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <tuple>

#include "optim/arrow_options.h"
#include "optim/segments.h"

namespace eg {
namespace {

constexpr int kBaseSlot = 0, kArrowSlot = 1;

/// A run of parameters that ARROW updates: a whole tensor, or the q, k or v third of a fused one.
struct Target {
  std::string name;
  std::int64_t begin = 0, size = 0;  // in the arena
  int block = 0, module = 0;         // module: q 0, k 1, v 2, output 3, fc1 4, fc2 5
  bool decays = false;
};

/// Targets that share a window, with everything a solve needs. Device memory throughout.
struct Group {
  std::string name;
  std::vector<Target> targets;
  std::vector<Tensor> rings;  // one per target, [W+1, P]
  Tensor grams, dots, state;
  std::vector<ArrowTarget> views;
  std::int64_t parameters = 0;
};

bool chosen(const ArrowSettings& s, int block) { return std::binary_search(s.blocks.begin(), s.blocks.end(), block); }

/// Appends what of one parameter belongs to ARROW.
void add_targets(const ArrowSettings& s, const Param& p, std::vector<Target>& out) {
  const bool matrix = p.shape.rank() == 2;
  if (p.frozen || !chosen(s, p.block) || (!matrix && !s.biases)) return;
  const std::string suffix = matrix ? ".weight" : ".bias";
  const std::string stem = p.name.substr(0, p.name.rfind('.'));
  if (p.module == Module::qkv) {
    const std::int64_t third = p.size() / 3;
    for (int k = 0; k < 3; ++k)
      if (s.tensors.find("qkv"[k]) != std::string::npos && (matrix || k != 1))
        out.push_back({cat(stem, ".", "qkv"[k], suffix), p.offset + k * third, third, p.block, k, p.decays});
  } else if (p.module == Module::proj && s.tensors.find('o') != std::string::npos) {
    out.push_back({p.name, p.offset, p.size(), p.block, 3, p.decays});
  } else if (s.mlp && (p.module == Module::fc1 || p.module == Module::fc2)) {
    out.push_back({p.name, p.offset, p.size(), p.block, p.module == Module::fc1 ? 4 : 5, p.decays});
  }
}

/// The name of the group that a target belongs to.
std::string group_of(const ArrowSettings& s, const Target& t) {
  static const char* const kModules[] = {"q", "k", "v", "o", "fc1", "fc2"};
  if (s.grouping == ArrowGrouping::tensor) return t.name;
  if (s.grouping == ArrowGrouping::module) return cat("block", t.block, ".", kModules[t.module]);
  return s.grouping == ArrowGrouping::block ? cat("block", t.block) : "all";
}

/// What remains of the segments without the given ranges.
std::vector<Segment> without(const std::vector<Segment>& segments, std::vector<Target> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const Target& a, const Target& b) { return a.begin < b.begin; });
  std::vector<Segment> rest;
  for (Segment s : segments) {
    for (const Target& r : ranges) {
      if (r.begin + r.size <= s.begin || r.begin >= s.end) continue;
      if (r.begin > s.begin) {
        Segment before = s;
        before.end = r.begin;
        rest.push_back(before);
      }
      s.begin = r.begin + r.size;
    }
    if (s.begin < s.end) rest.push_back(s);
  }
  return rest;
}

TensorView part(const Tensor& arena, const Target& t) {
  if (!arena) return {};
  return {static_cast<char*>(arena.data()) + std::size_t(t.begin) * size_of(arena.dtype()), arena.dtype(), {t.size}};
}

class Arrow final : public Optimizer {
 public:
  Arrow(ArrowSettings settings, const Parameters& p, double lr);
  std::string name() const override { return "arrow"; }
  void prepare(StepContext& ctx) override;
  void on_gradient_final(int group, StepContext& ctx) override;
  void step(StepContext& ctx) override;
  void task_boundary(StepContext& ctx, bool keep_state) override;
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override;
  std::size_t state_bytes() const override;
  std::map<std::string, double> scalars() override;
  std::string describe() const override;

 private:
  void build_group(Group& g);
  void observe(Group& g, std::size_t index, Stream stream);
  void update_group(Group& g, StepContext& ctx);
  void update_rest(StepContext& ctx);
  ArrowState* state_of(const Group& g) const { return static_cast<ArrowState*>(g.state.data()); }
  void change_state(Group& g, const std::function<void(ArrowState&)>& change);
  bool general_form() const;

  ArrowSettings s_;
  ParamArena& arena_;
  double lr_;
  Device device_;
  std::vector<Group> groups_;
  std::vector<Segment> rest_;
  Tensor m_, v_, momentum_;  // over the whole arena; moments only with base=adamw
};

Arrow::Arrow(ArrowSettings settings, const Parameters& p, double lr)
    : s_(std::move(settings)), arena_(*p.arena), lr_(lr), device_(p.arena->device) {
  std::vector<Target> targets;
  for (const Param* param : p.list) add_targets(s_, *param, targets);
  check(!targets.empty(), Kind::usage, [&] {
    return cat("arrow: blocks and tensors=", s_.tensors, " leave nothing to update; are those parameters frozen?");
  });
  if (s_.adamw_base) {
    m_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), device_);
    v_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), device_);
  }
  if (s_.momentum > 0.0) momentum_ = Tensor::zeros(arena_.master.shape(), arena_.master.dtype(), device_);
  for (const Target& t : targets) {
    const std::string name = group_of(s_, t);
    auto g = std::find_if(groups_.begin(), groups_.end(), [&](const Group& x) { return x.name == name; });
    if (g == groups_.end()) g = groups_.insert(g, Group{.name = name});
    g->targets.push_back(t);
  }
  for (Group& g : groups_) build_group(g);
  rest_ = without(segments_of(p, s_.weight_decay), targets);
}

/// The closed form needs the gradient itself as a column; a rounded ring or a preconditioned momentum is not one.
bool Arrow::general_form() const {
  return s_.precondition_momentum || (s_.bf16_ring && arena_.grad.dtype() != DType::bf16);
}

void Arrow::build_group(Group& g) {
  const std::int64_t slots = s_.solve.window + 1, tensors = std::int64_t(g.targets.size());
  g.grams = Tensor::zeros({tensors, slots, slots}, DType::f64, device_);
  if (general_form()) g.dots = Tensor::zeros({tensors, slots + 3}, DType::f64, device_);
  g.state = Tensor::zeros({std::int64_t(sizeof(ArrowState))}, DType::u8, device_);
  change_state(g, [](ArrowState& s) { s = {}; });
  for (const Target& t : g.targets) {
    const DType type = s_.bf16_ring ? DType::bf16 : arena_.grad.dtype();
    g.rings.push_back(Tensor::zeros({slots, t.size}, type, device_));
    g.views.push_back({.weight = part(arena_.master, t),
                       .grad = part(arena_.grad, t),
                       .work = part(arena_.work, t),
                       .ring = g.rings.back().view(),
                       .m = part(m_, t),
                       .v = part(v_, t),
                       .momentum = part(momentum_, t),
                       .weight_decay = t.decays ? s_.weight_decay : 0.0});
    g.parameters += t.size;
  }
}

void Arrow::prepare(StepContext& ctx) {
  ctx.host_step->slot[kBaseSlot].lr = lr_ * ctx.lr_factor;
  ctx.host_step->slot[kArrowSlot].lr = (s_.lr < 0.0 ? lr_ : s_.lr) * ctx.lr_factor;
}

void Arrow::observe(Group& g, std::size_t index, Stream stream) {
  const std::int64_t slots = s_.solve.window + 1;
  const ArrowTarget& t = g.views[index];
  ArrowObserve a{.grad = t.grad, .ring = t.ring, .state = state_of(g)};
  a.gram = {g.grams.data_as<double>() + std::int64_t(index) * slots * slots, DType::f64, {slots, slots}};
  if (g.dots) a.dots = {g.dots.data_as<double>() + std::int64_t(index) * (slots + 3), DType::f64, {slots + 3}};
  if (s_.precondition_momentum) a.vector = t.momentum;
  EVERGRAD_CALL(device_, arrow_observe, a, stream);
}

void Arrow::on_gradient_final(int block, StepContext& ctx) {
  for (Group& g : groups_)
    for (std::size_t i = 0; i < g.targets.size(); ++i)
      if (g.targets[i].block == block) observe(g, i, ctx.stream);
}

void Arrow::update_group(Group& g, StepContext& ctx) {
  ArrowState* const state = state_of(g);
  EVERGRAD_CALL(device_, arrow_solve,
                ArrowSolve{.grams = g.grams.view(),
                           .dots = g.dots ? g.dots.view() : TensorView{},
                           .vector_mu = s_.precondition_momentum ? s_.momentum : 0.0,
                           .parameters = g.parameters,
                           .options = s_.solve,
                           .step = ctx.device_step,
                           .state = state},
                ctx.stream);
  if (m_)
    EVERGRAD_CALL(device_, arrow_base,
                  ArrowBase{.targets = g.views,
                            .step = ctx.device_step,
                            .state = state,
                            .slot = kArrowSlot,
                            .beta1 = s_.beta1,
                            .beta2 = s_.beta2,
                            .eps = s_.eps},
                  ctx.stream);
  EVERGRAD_CALL(device_, arrow_update,
                ArrowUpdate{.targets = g.views,
                            .step = ctx.device_step,
                            .state = state,
                            .slot = kArrowSlot,
                            .base_slot = kBaseSlot,
                            .window = s_.solve.window,
                            .graft = s_.graft,
                            .mu = s_.momentum,
                            .precondition_momentum = s_.precondition_momentum,
                            .beta1 = s_.beta1,
                            .beta2 = s_.beta2,
                            .eps = s_.eps},
                ctx.stream);
}

void Arrow::update_rest(StepContext& ctx) {
  const TensorView weight = arena_.master.view(), grad = arena_.grad.view();
  const TensorView work = arena_.work ? arena_.work.view() : TensorView{};
  if (s_.adamw_base)
    EVERGRAD_CALL(device_, adam_update,
                  AdamUpdate{.weight = weight,
                             .grad = grad,
                             .m = m_.view(),
                             .v = v_.view(),
                             .work = work,
                             .segments = rest_,
                             .step = ctx.device_step,
                             .beta1 = s_.beta1,
                             .beta2 = s_.beta2,
                             .eps = s_.eps,
                             .decoupled = true},
                  ctx.stream);
  else
    EVERGRAD_CALL(device_, sgd_update,
                  SgdUpdate{.weight = weight,
                            .grad = grad,
                            .work = work,
                            .segments = rest_,
                            .step = ctx.device_step,
                            .decoupled = true},
                  ctx.stream);
}

void Arrow::step(StepContext& ctx) {
  for (Group& g : groups_) update_group(g, ctx);
  update_rest(ctx);
  EVERGRAD_CALL(device_, step_finish, StepFinish{.step = ctx.device_step, .slots = 1u << kBaseSlot | 1u << kArrowSlot},
                ctx.stream);
}

void Arrow::change_state(Group& g, const std::function<void(ArrowState&)>& change) {
  ArrowState host;
  DeviceRuntime& device = runtime(device_);
  device.copy_to_host(&host, g.state.data(), sizeof host, {});
  device.synchronize({});
  change(host);
  device.copy_from_host(g.state.data(), &host, sizeof host, {});
  device.synchronize({});
}

void Arrow::task_boundary(StepContext& ctx, bool keep_state) {
  if (!keep_state) {
    for (Tensor* const t : {&m_, &v_, &momentum_})
      if (*t) runtime(device_).set_zero(t->data(), t->bytes(), {});
    ctx.host_step->slot[kBaseSlot].t = ctx.host_step->slot[kArrowSlot].t = 0;
  }
  for (Group& g : groups_)
    change_state(g, [&](ArrowState& s) {
      if (!keep_state) {
        s = {};
      } else if (s_.boundary != ArrowBoundary::keep) {
        s.filled = 0;
        if (s_.boundary == ArrowBoundary::clear) s.t = 0, s.largest_diagonal = 0.0;
      }
    });
}

void Arrow::visit_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  if (m_) visit("m", m_), visit("v", v_);
  if (momentum_) visit("momentum", momentum_);
  for (Group& g : groups_) {
    visit(cat(g.name, ".state"), g.state);
    visit(cat(g.name, ".gram"), g.grams);
    for (std::size_t i = 0; i < g.rings.size(); ++i) visit(cat(g.name, ".ring.", g.targets[i].name), g.rings[i]);
  }
}

std::size_t Arrow::state_bytes() const {
  std::size_t bytes = 0;
  for (const Tensor* t : {&m_, &v_, &momentum_})
    if (*t) bytes += t->bytes();
  for (const Group& g : groups_) {
    bytes += g.grams.bytes() + g.state.bytes();
    for (const Tensor& r : g.rings) bytes += r.bytes();
  }
  return bytes;
}

/// Sums over groups of squared norms, and means of what has no sum; "arrow.shrink" is |u| / |g| before grafting.
std::map<std::string, double> Arrow::scalars() {
  double gradient = 0.0, update = 0.0, descent = 0.0, trace = 0.0, alpha = 0.0, beta = 0.0, filled = 0.0, warm = 0.0;
  for (Group& g : groups_)
    change_state(g, [&](ArrowState& s) {
      gradient += s.norm_sq_gradient, update += s.norm_sq_update, descent += s.descent;
      trace += s.trace, alpha += s.alpha, beta += s.beta, filled += double(s.filled), warm += double(s.use_base);
    });
  const double n = double(groups_.size());
  return {{"arrow.gradient_norm", std::sqrt(gradient)},
          {"arrow.update_norm", std::sqrt(update)},
          {"arrow.shrink", gradient > 0.0 ? std::sqrt(update / gradient) : 0.0},
          {"arrow.descent", descent},
          {"arrow.trace", trace / n},
          {"arrow.alpha", alpha / n},
          {"arrow.beta", beta / n},
          {"arrow.filled", filled / n},
          {"arrow.base_share", warm / n}};
}

std::string Arrow::describe() const {
  std::size_t tensors = 0;
  std::int64_t parameters = 0;
  std::string blocks;
  for (const int b : s_.blocks) blocks += cat(blocks.empty() ? "" : ",", b);
  for (const Group& g : groups_) tensors += g.targets.size(), parameters += g.parameters;
  static const char* const kDamping[] = {"absolute", "relative", "dimensionless"};
  static const char* const kGraft[] = {"not grafted", "grafted to SGD's norm", "grafted to AdamW's norm"};
  const ArrowOptions& o = s_.solve;
  const std::string strength = o.damping == ArrowDamping::dimensionless ? cat("kappa=", o.kappa)
                               : o.damping == ArrowDamping::relative    ? cat("rho=", o.rho)
                                                                        : cat("alpha=", o.alpha, " beta=", o.beta);
  return cat("ARROW on ", s_.tensors, s_.mlp ? " and the MLP" : "", " of blocks ", blocks, " (", tensors, " tensors, ",
             parameters, " parameters, ", groups_.size(), " window", groups_.size() == 1 ? "" : "s", "), W=", o.window,
             ", ", kDamping[int(o.damping)], " damping ", strength, ", ", kGraft[int(s_.graft)], ", lr ",
             s_.lr < 0.0 ? lr_ : s_.lr, "; ", s_.adamw_base ? "AdamW" : "SGD", " lr ", lr_, " elsewhere, weight decay ",
             s_.weight_decay);
}

}  // namespace

std::unique_ptr<Optimizer> make_arrow(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay) {
  return std::make_unique<Arrow>(read_arrow_settings(spec, p.depth, weight_decay), p, lr);
}

}  // namespace eg
