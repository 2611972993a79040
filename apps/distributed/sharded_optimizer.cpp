// apps/distributed/sharded_optimizer.cpp - see sharded_optimizer.h. The update rules themselves know which pieces of the arena
// are this rank's (Parameters::division); here stands what surrounds them: the weights of all, and whole state in checkpoints.
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
    const auto trained = [&](const Division::Range& r) {
      return std::any_of(p.list.begin(), p.list.end(),
                         [&](const Param* q) { return !q->frozen && q->offset >= r.begin && q->offset < r.end; });
    };
    std::copy_if(division_.ranges.begin(), division_.ranges.end(), std::back_inserter(trained_), trained);
    inner_ = make_optimizer(spec, {p.list, p.arena, p.depth, &division_}, lr, weight_decay);
  }

  std::string name() const override { return inner_->name(); }
  void prepare(StepContext& ctx) override {
    whole_.clear();  // what was saved is saved
    inner_->prepare(ctx);
  }
  void on_gradient_final(int group, StepContext& ctx) override { inner_->on_gradient_final(group, ctx); }
  void step(StepContext& ctx) override {
    inner_->step(ctx);
    // In the order in which the next forward pass reads them: the arena begins with the last layer.
    for (auto r = trained_.rbegin(); r != trained_.rend(); ++r) division_.gather(arena_.master, *r, ctx.stream);
    if (arena_.work)
      EVERGRAD_CALL(arena_.device, cast, Cast{.from = arena_.master.view(), .to = arena_.work.view()}, ctx.stream);
  }
  void task_boundary(StepContext& ctx, bool keep_state) override { inner_->task_boundary(ctx, keep_state); }

  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    whole_.clear();
    inner_->visit_state([&](const std::string& tensor, Tensor& t) {
      // ARROW gathers what belongs to its matrices itself.
      if (arrow_ && tensor != "m" && tensor != "v") return visit(tensor, t);
      whole_.push_back({t, division_.assemble(t)});
      visit(tensor, whole_.back().second);
    });
  }
  void state_restored() override {
    for (const auto& [kept, whole] : whole_) division_.take(whole, kept);
    whole_.clear();
    inner_->state_restored();
  }
  std::size_t state_bytes() const override { return inner_->state_bytes(); }
  std::map<std::string, double> scalars() override { return inner_->scalars(); }
  std::string describe() const override {
    return cat(inner_->describe(), ", its state divided among ", division_.ranks->size(), " ranks");
  }

 private:
  ParamArena& arena_;
  const Division division_;
  const bool arrow_;
  std::vector<Division::Range> trained_;  // ranges that hold a parameter that is not frozen
  std::unique_ptr<Optimizer> inner_;
  std::vector<std::pair<Tensor, Tensor>> whole_;  // what this rank keeps, and the whole that was visited
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
