// optim/plasticity/resets.cpp - drawing weights anew between tasks: the head, parts of some blocks, or, as the control
// without which no claim of lost plasticity holds, the whole network (methods.md B.8, C.4).
#include <algorithm>

#include "optim/plasticity/intervention.h"
#include "optim/plasticity/selection.h"

namespace eg {
namespace {

class Reset final : public Intervention {
 public:
  Reset(const MethodSpec& spec, const Parameters& p) : params_(p) {
    OptionReader r(spec);
    const bool head = r.flag("head", true);
    blocks_ = read_blocks(r, "blocks", "none", p.depth, spec.name);
    const int part = r.choice("part", {"all", "attention", "mlp", "norms"}, 0);
    // A block whose output projections are zero passes its input on: it starts as the identity.
    const bool out_zero = r.flag("out-zero", false);
    clears_ = r.flag("clear-optimizer", false);
    r.finish();
    for (const Param* param : p.list) {
      if (param->frozen) continue;
      const bool chosen = std::find(blocks_.begin(), blocks_.end(), param->block) != blocks_.end();
      if ((head && param->module == Module::head) || (chosen && takes(*param, part))) {
        const bool output = param->module == Module::proj || param->module == Module::fc2;
        (chosen && out_zero && output ? zeroed_ : drawn_).push_back(param);
      }
    }
    check(!drawn_.empty() || !zeroed_.empty(), Kind::usage,
          [&] { return cat(spec.name, ": nothing is reset; give head or blocks=last:N"); });
  }
  std::string name() const override { return "head-reset"; }
  Stage stage() const override { return Stage::replacement; }
  void task_boundary(StepContext& ctx) override {
    for (const Param* p : drawn_) redraw(*p, *params_.arena, ctx.host_step->seed, std::uint32_t(ctx.task));
    for (const Param* p : zeroed_) p->master.set_zero();
    params_.arena->refresh_work();
    ctx.weights_changed = true;
  }
  bool clears_optimizer() const override { return clears_; }
  std::string describe() const override {
    return cat("at a new task ", drawn_.size(), " tensors drawn anew", zeroed_.empty() ? "" : " and others zeroed",
               clears_ ? ", moments cleared" : "");
  }

 private:
  static bool takes(const Param& p, int part) {
    const bool norm = p.role == Role::norm;
    const bool mlp = p.module == Module::fc1 || p.module == Module::fc2;
    const bool attention = p.module == Module::qkv || p.module == Module::proj;
    return part == 0 || (part == 1 && attention) || (part == 2 && mlp) || (part == 3 && norm);
  }
  Parameters params_;
  std::vector<int> blocks_;
  bool clears_ = false;
  std::vector<const Param*> drawn_, zeroed_;
};

class Fresh final : public Intervention {
 public:
  Fresh(const MethodSpec& spec, const Parameters& p) : params_(p) {
    OptionReader(spec).finish();
    if (std::any_of(p.list.begin(), p.list.end(), [](const Param* q) { return q->imported && !q->frozen; }))
      anchor_ = p.arena->master.clone();
  }
  std::string name() const override { return "fresh"; }
  Stage stage() const override { return Stage::replacement; }
  void task_boundary(StepContext& ctx) override {
    for (const Param* p : params_.list) {
      if (p->frozen) continue;
      // What came from a file comes from it again, unless the head's own policy has just replaced it.
      if (p->imported && !(p->module == Module::head && ctx.head_changed))
        p->master.copy_from(anchor_.slice(p->offset, p->size()).reshape(p->shape));
      else
        redraw(*p, *params_.arena, ctx.host_step->seed, std::uint32_t(ctx.task));
    }
    params_.arena->refresh_work();
    ctx.weights_changed = true;
  }
  bool clears_optimizer() const override { return true; }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    if (anchor_) visit("anchor", anchor_);
  }
  std::size_t state_bytes() const override { return anchor_ ? anchor_.bytes() : 0; }
  std::string describe() const override {
    return anchor_ ? "the imported network, again for every task" : "a new network for every task";
  }

 private:
  Parameters params_;
  Tensor anchor_;  // the first weights, where they came from a file
};

}  // namespace

std::unique_ptr<Intervention> make_reset(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Reset>(spec, p);
}
std::unique_ptr<Intervention> make_fresh(const MethodSpec& spec, const Parameters& p) {
  return std::make_unique<Fresh>(spec, p);
}

}  // namespace eg
