// apps/distributed/sharded_optimizer.cpp - see sharded_optimizer.h. An elementwise update does not know what it updates: it is
// built on an arena that is this rank's part of the real one, with the parameters cut to what lies in it. ARROW, which has to
// know whole matrices, gets them all and cuts for itself.
#include "apps/distributed/sharded_optimizer.h"

#include <algorithm>
#include <set>
#include <vector>

#include "engine/error.h"
#include "engine/kernels.h"

namespace eg {
namespace {

bool is_arrow(const MethodSpec& spec) { return spec.name == "arrow" || spec.name == "norm-control"; }

class ShardedOptimizer final : public Optimizer {
 public:
  ShardedOptimizer(const MethodSpec& spec, const Parameters& p, double lr, double weight_decay,
                   const Division& division)
      : arena_(*p.arena), division_(division), arrow_(is_arrow(spec)) {
    own_ = {.size = division_.size, .device = arena_.device};
    own_.master = division_.own(arena_.master), own_.grad = division_.own(arena_.grad);
    if (arena_.work) own_.work = division_.own(arena_.work);
    cut(p.list);
    inner_ = arrow_ ? make_optimizer(spec, {p.list, &own_, p.depth, &division_}, lr, weight_decay)
                    : make_optimizer(spec, {pointers_, &own_, p.depth}, lr, weight_decay);
  }

  std::string name() const override { return inner_->name(); }
  void prepare(StepContext& ctx) override {
    whole_.clear();  // what was saved is saved
    inner_->prepare(ctx);
  }
  void on_gradient_final(int group, StepContext& ctx) override { inner_->on_gradient_final(group, ctx); }
  void step(StepContext& ctx) override {
    inner_->step(ctx);
    division_.gather(arena_.master, ctx.stream);
    if (arena_.work)
      EVERGRAD_CALL(arena_.device, cast, Cast{.from = arena_.master.view(), .to = arena_.work.view()}, ctx.stream);
  }
  void task_boundary(StepContext& ctx, bool keep_state) override { inner_->task_boundary(ctx, keep_state); }

  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    whole_.clear();
    inner_->visit_state([&](const std::string& tensor, Tensor& t) {
      // ARROW gathers what belongs to its matrices itself.
      if (arrow_ ? tensor != "m" && tensor != "v" : t.shape() != own_.master.shape()) return visit(tensor, t);
      Tensor whole = Tensor::zeros({division_.whole}, t.dtype(), arena_.device);
      division_.own(whole).copy_from(t);
      division_.gather(whole, {});
      runtime(arena_.device).synchronize({});
      whole_.push_back({t, whole});
      visit(tensor, whole);
    });
  }
  void state_restored() override {
    for (const auto& [part, whole] : whole_) part.copy_from(division_.own(whole));
    whole_.clear();
    inner_->state_restored();
  }
  std::size_t state_bytes() const override { return inner_->state_bytes(); }
  std::map<std::string, double> scalars() override { return inner_->scalars(); }
  std::string describe() const override {
    return cat(inner_->describe(), ", its state divided among ", division_.ranks->size(), " ranks");
  }

 private:
  /// The parameters, as far as they lie in this rank's part.
  void cut(std::span<Param* const> params) {
    for (const Param* p : params) {
      const std::int64_t from = std::max(p->offset, division_.begin);
      const std::int64_t to = std::min(p->offset + p->size(), division_.end());
      if (from >= to) continue;
      Param q = *p;
      q.shape = {to - from}, q.offset = from - division_.begin, q.sums = {}, q.link = {};
      q.master = own_.master.slice(q.offset, q.size()), q.grad = own_.grad.slice(q.offset, q.size());
      q.value = own_.work ? own_.work.slice(q.offset, q.size()) : q.master;
      params_.push_back(std::move(q));
    }
    for (Param& p : params_) pointers_.push_back(&p);
  }

  ParamArena& arena_;
  const Division division_;
  const bool arrow_;
  ParamArena own_;  // views of arena_
  std::vector<Param> params_;
  std::vector<Param*> pointers_;
  std::unique_ptr<Optimizer> inner_;
  std::vector<std::pair<Tensor, Tensor>> whole_;  // this rank's part, and the whole that was visited
};

}  // namespace

std::unique_ptr<Optimizer> make_sharded_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                                  double weight_decay, const Division& division) {
  static const std::set<std::string> kElementwise{"sgd", "adam", "adamw"};
  check((kElementwise.contains(spec.name) || is_arrow(spec)) && spec.with.empty(), Kind::usage, [&] {
    return cat("--zero 1 divides the state of sgd, adam, adamw, arrow and norm-control, each without interventions; ",
               to_text(spec), " looks at whole matrices: use --zero 0");
  });
  return std::make_unique<ShardedOptimizer>(spec, parameters, lr, weight_decay, division);
}

}  // namespace eg
