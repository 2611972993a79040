// optim/plasticity/combined.cpp - a base optimizer and its interventions as one optimizer, in the order of methods.md
// 0.4.
#include <algorithm>

#include "optim/plasticity/intervention.h"
#include "optim/plasticity/units.h"

namespace eg {
namespace {

class Combined final : public Optimizer {
 public:
  Combined(std::unique_ptr<Optimizer> base, std::vector<std::unique_ptr<Intervention>> parts)
      : base_(std::move(base)), parts_(std::move(parts)) {
    std::stable_sort(parts_.begin(), parts_.end(),
                     [](const auto& a, const auto& b) { return int(a->stage()) < int(b->stage()); });
    for (const auto& p : parts_) p->attach(*base_);
  }
  std::string name() const override {
    std::string all = base_->name();
    for (const auto& p : parts_) all += cat('+', p->name());
    return all;
  }
  std::int64_t updates_from_batch(StepContext& ctx) override {
    std::int64_t updates = base_->updates_from_batch(ctx);
    for (const auto& p : parts_) updates *= p->updates_from_batch(ctx);
    return updates;
  }
  std::int64_t probe_images() const override {
    std::int64_t images = base_->probe_images();
    for (const auto& p : parts_) images = std::max(images, p->probe_images());
    return images;
  }
  void prepare(StepContext& ctx) override { base_->prepare(ctx); }
  void on_gradient_final(int group, StepContext& ctx) override {
    for (const auto& p : parts_) p->penalty(group, ctx);
    base_->on_gradient_final(group, ctx);
  }
  bool ascends() const override {
    return std::any_of(parts_.begin(), parts_.end(), [](const auto& p) { return p->ascends(); });
  }
  Tensor ascend(StepContext& ctx) override {
    for (const auto& p : parts_)
      if (p->ascends()) return p->ascend(ctx);
    return {};
  }
  void step(StepContext& ctx) override {
    for (const auto& p : parts_) p->before_update(ctx);
    base_->step(ctx);
    for (const auto& p : parts_) p->after_update(ctx);
  }
  void after_step(StepContext& ctx) override {
    base_->after_step(ctx);
    bool changed = false;
    for (const auto& p : parts_) {
      changed |= p->after_step(ctx);
      if (changed && p->stage() >= Stage::clipping) p->after_update(ctx);
    }
  }
  void visit_moments(const std::function<void(Tensor&)>& visit) override { base_->visit_moments(visit); }
  void task_boundary(StepContext& ctx, bool keep_state) override {
    const bool later = ctx.task > 0;
    for (const auto& p : parts_) {
      if (!later) continue;
      p->task_boundary(ctx);
      keep_state &= !p->clears_optimizer();
    }
    base_->task_boundary(ctx, keep_state);
  }
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override {
    base_->visit_state(visit);
    for (const auto& p : parts_)
      p->visit_state([&](const std::string& name, Tensor& t) { visit(cat(p->name(), '.', name), t); });
  }
  void state_restored() override {
    base_->state_restored();
    for (const auto& p : parts_) p->state_restored();
  }
  std::size_t state_bytes() const override {
    std::size_t bytes = base_->state_bytes();
    for (const auto& p : parts_) bytes += p->state_bytes();
    return bytes;
  }
  std::map<std::string, double> scalars() override {
    std::map<std::string, double> all = base_->scalars();
    for (const auto& p : parts_)
      for (const auto& [name, value] : p->scalars()) all[cat(p->name(), '.', name)] = value;
    return all;
  }
  std::string describe() const override {
    std::string all = base_->describe();
    for (const auto& p : parts_) all += cat("; ", p->describe());
    return all;
  }

 private:
  std::unique_ptr<Optimizer> base_;
  std::vector<std::unique_ptr<Intervention>> parts_;
};

}  // namespace

std::unique_ptr<Optimizer> combine(std::unique_ptr<Optimizer> base, std::vector<std::unique_ptr<Intervention>> parts) {
  if (parts.empty()) return base;
  // TRAC keeps a reference point and a way from it for every weight: what rewrites weights would be undone by it.
  const bool trac = std::any_of(parts.begin(), parts.end(), [](const auto& p) { return p->name() == "trac"; });
  for (const auto& p : parts)
    check(!trac || !p->rewrites_weights(), Kind::usage, [&] {
      return cat("method: trac does not combine with ", p->name(), ", which rewrites weights behind its reference");
    });
  for (std::size_t i = 0; i < parts.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      check(parts[i]->name() != parts[j]->name(), Kind::usage,
            [&] { return cat("method: ", parts[i]->name(), " is given twice"); });
  std::string ascending;
  for (const auto& p : parts) {
    if (!p->ascends()) continue;
    check(ascending.empty(), Kind::usage, [&] {
      return cat("method: ", ascending, " and ", p->name(), " both take their gradient elsewhere; leave one out");
    });
    ascending = p->name();
  }
  // A unit has one place where its activity is summed up, and one count of updates.
  const Intervention* first = nullptr;
  for (const auto& p : parts) {
    if (!dynamic_cast<const UnitMethod*>(p.get())) continue;
    check(!first, Kind::usage, [&] {
      return cat("method: ", first->name(), " and ", p->name(), " both replace hidden units; give one of them");
    });
    first = p.get();
  }
  return std::make_unique<Combined>(std::move(base), std::move(parts));
}

}  // namespace eg
