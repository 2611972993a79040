// apps/trainer_state.cpp - a trainer between steps: tasks, heads, checkpoints, and what ranks that divide the weights have of them.
#include <utility>

#include "apps/trainer.h"
#include "engine/collectives/agree.h"
#include "engine/file.h"
#include "engine/memory.h"

namespace eg {

/// Between steps everybody reads weights at will.
void Trainer::gather_weights() {
  if (std::exchange(to_gather_, false)) divided_->gather();
}

std::unique_ptr<DividedWeights::Whole> Trainer::whole() {
  gather_weights();
  return divided_ ? std::make_unique<DividedWeights::Whole>(*divided_) : nullptr;
}

std::unique_ptr<DividedWeights::Whole> Trainer::whole_head() {
  gather_weights();
  if (!divided_) return nullptr;
  std::vector<Param*> head;
  visit_params(model_.head, [&](Param& p) { head.push_back(&p); });
  return std::make_unique<DividedWeights::Whole>(*divided_, head);
}

void Trainer::gather_gradient() {
  if (division_) division_->gather(arena_.grad, {});
}

Evaluation Trainer::evaluate_task(std::int64_t task, Loader& loader, const Tensor& class_mask) {
  const auto whole = heads_.has(task) ? whole_head() : nullptr;
  const HeadBank::Lent head(heads_, task, model_, arena_);
  return evaluate(loader, class_mask);
}

void Trainer::begin_task(std::int64_t task, const std::string& head_policy, bool keep_optimizer_state,
                         const NextBatch& batches, const Tensor& class_mask) {
  gather_weights();
  if (head_policy != "keep") {
    const auto whole = whole_head();
    if (head_policy == "fresh") reset_head(model_, arena_, config_.seed, std::uint32_t(task));
    if (head_policy == "zero") zero_head(model_, arena_);
    if (head_policy == "multi") heads_.switch_head(model_, arena_, task - 1, task, config_.seed);
  }
  upload_record();  // what acts between tasks may draw random numbers by the step's number
  StepContext ctx{static_cast<StepRecord*>(device_record_.data()), &record(), 1.0, {}};
  ctx.task = task, ctx.head_changed = head_policy != "keep";
  if (batches)
    ctx.gradients_of_task = [&](const std::function<void()>& each) {
      while (const Batch* const batch = batches()) gradient_alone(*batch, class_mask), each();
    };
  optimizer_->task_boundary(ctx, keep_optimizer_state);
  if (probe_) probe_->forget();
  if (ema_ && (head_policy != "keep" || ctx.weights_changed)) ema_->rebase();
  upload_record();
}

std::vector<StateTensor> Trainer::state() {
  std::vector<StateTensor> all;
  const auto add = [&](const std::string& name, const Tensor& t, std::optional<TensorPart> part = std::nullopt) {
    all.push_back({{name, t}, std::move(part)});
  };
  gather_weights();
  if (!division_)
    add("weights", arena_.master);
  else if (arena_.own_master)
    add("weights", arena_.own_master, division_->part());
  else
    add("weights", arena_.master, division_->part_in_place());
  add("step_record", host_record_);
  optimizer_->visit_state(
      [&](const std::string& name, Tensor& t) { add("optimizer." + name, t, optimizer_->kept_part(name)); });
  if (ema_) add("ema", ema_->kept(), ema_->part());
  if (probe_) probe_->visit_state([&](const std::string& name, Tensor& t) { add(name, t); });
  heads_.visit_state([&](const std::string& name, Tensor& t) { add(name, t); });
  return all;
}

void Trainer::check_ranks_agree() {
  if (ranks_->size() == 1) return;
  gather_weights();
  const Tensor weights = (arena_.own_master ? arena_.work : arena_.master).to(kCpu);
  const std::uint64_t sum = checksum_of({static_cast<const std::byte*>(weights.data()), weights.bytes()});
  check_same_on_ranks(*ranks_, "the bits of their weights", cat(std::hex, sum),
                      "their machines compute differently: use the same processor, build and --threads on all of them, "
                      "and continue from the last checkpoint");
}

void Trainer::expect_heads(std::int64_t count) {
  for (std::int64_t task = 0; task < count; ++task) heads_.add(task, model_);
}

void Trainer::restored() {
  if (divided_)
    divided_->refresh();  // each rank has read its pieces
  else
    arena_.refresh_work();
  to_gather_ = false;
  optimizer_->state_restored();
  upload_record();
}

std::string Trainer::describe() const {
  return cat(model_.config.describe(), "; ", optimizer_->describe(),
             divided_ ? cat(", its state divided among ", ranks_->size(), " ranks") : std::string());
}

std::size_t Trainer::peak_bytes() const {
  return pool(config_.device).bytes_peak() + (arena_.own_master ? arena_.own_master : arena_.master).bytes() +
         (divided_ ? divided_->most_lent_bytes() : 0) + arena_.grad.bytes() + (arena_.work ? arena_.work.bytes() : 0) +
         optimizer_->state_bytes() + (ema_ ? ema_->state_bytes() : 0);
}

}  // namespace eg
