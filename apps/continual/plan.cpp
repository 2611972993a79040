// apps/continual/plan.cpp - see plan.h.
#include "apps/continual/plan.h"

#include <charconv>
#include <set>

#include "apps/weights/init_flags.h"
#include "layers/freeze.h"

namespace eg {
namespace {

bool arrives(Protocol p) { return p == Protocol::class_incremental; }

template <class T>
void check_distinct(const char* flag, const std::vector<T>& values) {
  std::set<T> seen;
  for (const T& v : values)
    check(seen.insert(v).second, Kind::usage,
          [&] { return cat(flag, " names ", v, " twice; both runs would be the same, bit for bit"); });
}

Tensor tensor_of(const std::vector<std::uint8_t>& mask, Device device) {
  return mask.empty() ? Tensor{} : Tensor::from(mask, {std::int64_t(mask.size())}, device);
}

}  // namespace

ProbeCadence parse_probe_cadence(const std::string& text) {
  if (text == "none") return {};
  if (text == "every-task") return {1, 0};
  ProbeCadence cadence;
  std::int64_t* const into = text.ends_with("-tasks")   ? &cadence.tasks
                             : text.ends_with("-steps") ? &cadence.steps
                                                        : nullptr;
  bool good = into != nullptr && text.starts_with("every-");
  if (good) {
    const std::string_view number = std::string_view(text).substr(6, text.size() - 12);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), *into);
    good = error == std::errc{} && end == number.data() + number.size() && *into > 0;
  }
  check(good, Kind::usage,
        [&] { return cat("--probe ", text, " is none of every-task, every-N-tasks, every-N-steps (N from 1), none"); });
  return cadence;
}

Plan::Plan(const ContinualOptions& given, int ranks)
    : o_(given),
      machine_(resolve_machine(o_.machine, ranks)),
      methods_(split_list(o_.methods)),
      seeds_(parse_seeds(o_.seeds)),
      data_(open_data(o_.data)) {
  check(!methods_.empty(), Kind::usage,
        [] { return std::string("--methods is empty; write for example --methods adamw,arrow"); });
  check_distinct("--methods", methods_);
  check_distinct("--seeds", seeds_);
  for (const std::string& method : methods_)
    for (const std::uint64_t seed : seeds_) pairs_.push_back({method, seed});
  resolve_model(o_.model);
  resolve_head();
  resolve_draw();
  check_test_limit();
  check_test_earlier();
  cadence_ = parse_probe_cadence(o_.probe);
  if (o_.probe_images == 0) cadence_ = {};
  check_frozen_head();
  const auto first = stream(seeds_[0]);
  init_ = initial_weights(o_.model, vit_of(o_.model, first->head_classes(), machine_.activation), &init_notes_);
  for (const std::string& method : methods_) settings_.push_back(method_settings(trainer({method, seeds_[0]}, *first)));
}

void Plan::resolve_head() {
  std::set<Protocol> protocols{parse_protocol(o_.protocol)};
  if (!o_.then.empty()) protocols.insert(parse_protocol(o_.then));
  const bool incremental = protocols.contains(Protocol::class_incremental);
  if (o_.head == "auto")
    o_.head = arrives(parse_protocol(o_.protocol)) ? "growing" : o_.protocol == "5+1" ? "keep" : "fresh";
  check(o_.head != "growing" || incremental, Kind::usage, [&] {
    return cat("--head growing is for --protocol class-incremental, where classes arrive, not ", o_.protocol,
               "; use masked, keep or fresh");
  });
  const bool other_classes = incremental || protocols.contains(Protocol::class_subset) ||
                             protocols.contains(Protocol::five_plus_one) || protocols.contains(Protocol::groups);
  check(o_.head != "masked" || other_classes, Kind::usage, [&] {
    return cat("--head masked needs tasks with different classes (class-subset, class-incremental, 5+1, groups), not ",
               o_.protocol, "; use keep or fresh");
  });
  check(o_.head != "multi" || !incremental, Kind::usage, [] {
    return std::string(
        "--head multi gives every task its own head, but class-incremental asks for all classes so far; use growing "
        "or masked");
  });
}

void Plan::check_frozen_head() const {
  for (const std::string& pattern : o_.model.freeze)
    check(trainer_head() == "keep" || !(matches(pattern, "head.weight") || matches(pattern, "head.bias")), Kind::usage,
          [&] {
            return cat("--freeze ", pattern, " freezes the head, which --head ", o_.head,
                       " replaces at every task; use --head keep, or a narrower pattern such as blocks.*");
          });
}

void Plan::check_test_limit() const {
  const std::int64_t limit = o_.training.test_limit, classes = std::int64_t(o_.tasks) * o_.classes_per_task;
  const bool incremental = o_.protocol == "class-incremental" || o_.then == "class-incremental";
  check(!incremental || limit == 0 || limit >= classes, Kind::usage, [&] {
    return cat("--test-limit ", limit, " is spread over all classes so far, ", classes,
               " in the last task, and leaves some without a test image; use 0 (no limit) or at least ", classes);
  });
}

void Plan::check_test_earlier() const {
  check(!o_.test_earlier || knows_earlier(), Kind::usage, [&] {
    return cat("--test-earlier asks about tasks whose head is gone: --head ", o_.head,
               " replaces it at every task; use --head keep, multi, masked or growing");
  });
  check(!o_.test_earlier || o_.head != "multi" || o_.training.ema == 0.0, Kind::usage, [] {
    return std::string(
        "--test-earlier with --head multi and --ema: the average holds the present head only, not those of earlier "
        "tasks; leave out one of the three");
  });
}

void Plan::expect_heads(Trainer& trainer, const Position& at) const {
  if (trainer_head() == "multi") trainer.expect_heads(at.begun ? at.task : at.task - 1);
}

void Plan::resolve_draw() {
  if (o_.draw != "auto") return;
  const bool by_source = data_->parts().size() > 1 && o_.order != "mixed";
  if (o_.protocol == "5+1" || o_.protocol == "groups" || (by_source && o_.protocol == "class-subset")) {
    o_.draw = to_string(resolved_sampling(data_, stream_config(seeds_[0])));
    return;
  }
  const bool enough = std::int64_t(o_.tasks) * o_.classes_per_task <= data_->classes();
  const bool subsets = o_.protocol == "class-subset" || o_.then == "class-subset";
  o_.draw = enough || !subsets ? "disjoint" : "deck";  // only subsets can let classes come back
}

StreamConfig Plan::stream_config(std::uint64_t seed) const {
  StreamConfig c;
  c.protocol = parse_protocol(o_.protocol);
  c.tasks = o_.tasks;
  c.classes_per_task = o_.classes_per_task;
  c.sampling = parse_class_sampling(o_.draw);
  c.seed = seed;
  c.train_limit = o_.training.train_limit, c.test_limit = o_.training.test_limit;
  c.global_labels = o_.head == "masked";
  c.accumulate = o_.train_on == "seen";
  c.label_noise = o_.label_noise;
  c.permutation = o_.shuffle == "within-patch" ? "in-patch" : o_.shuffle == "patch-order" ? "patches" : "pixels";
  c.patch = o_.model.patch;
  c.domain = o_.domain;
  c.gradual = o_.shift == "gradual";
  c.order = parse_class_order(o_.order);
  c.validation = o_.validation;
  return c;
}

std::shared_ptr<const TaskStream> Plan::stream(std::uint64_t seed) const {
  StreamConfig c = stream_config(seed);
  auto all = make_stream(data_, c);
  if (!o_.then.empty()) {
    c.protocol = parse_protocol(o_.then);
    all = concatenate({all, make_stream(data_, c)});
  }
  return o_.validation > 0.0 ? tested_on_validation(all) : all;
}

Tensor Plan::test_mask(const Task& task) const { return tensor_of(task.class_mask, machine_.device); }

Tensor Plan::training_mask(const Task& task) const {
  if (o_.head != "masked" || o_.train_on == "seen") return test_mask(task);
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(task.head_classes), 0);
  for (const std::int32_t label : task.head_labels) mask[std::size_t(label)] = 1;
  return tensor_of(mask, machine_.device);
}

TrainerConfig Plan::trainer(const Pair& pair, const TaskStream& stream) const {
  TrainerConfig c;
  const TrainingOptions& t = o_.training;
  c.vit = vit_of(o_.model, stream.head_classes(), machine_.activation);
  c.init = init_, c.freeze = o_.model.freeze;
  c.device = machine_.device, c.record_steps = machine_.record_steps, c.zero = machine_.zero;
  c.reduce_bf16 = machine_.reduce_bf16;
  c.method = parse_method(pair.method);
  c.lr = t.lr, c.weight_decay = t.weight_decay, c.clip_norm = t.clip_norm;
  c.smoothing = t.smoothing, c.ema = t.ema, c.accumulate = t.accumulate;
  c.seed = pair.seed;
  return c;
}

LoaderConfig Plan::loader(const Task& task, std::uint64_t seed, bool training) const {
  LoaderConfig c = base_loader(o_.data, o_.model, o_.training.batch, task.head_classes, training);
  c.seed = seed;
  c.task = std::uint32_t(task.index);
  c.epochs = training ? epochs(task) : 1;
  if (training && task.transform.gradual) {
    const std::int64_t samples = task.train.size(), batches = per_epoch(task), left = updates(task) % batches;
    c.shift_samples = updates(task) / batches * samples + std::min(samples, left * c.batch);
  }
  return c;
}

std::int64_t Plan::per_epoch(const Task& task) const {
  return (task.train.size() + o_.training.batch - 1) / o_.training.batch;
}
std::int64_t Plan::updates(const Task& task) const {
  return o_.steps > 0 ? o_.steps : per_epoch(task) * o_.training.epochs;
}
std::int64_t Plan::epochs(const Task& task) const { return (updates(task) + per_epoch(task) - 1) / per_epoch(task); }

SampleSet Plan::probe_samples(const Task& task, std::int64_t most) const {
  SampleSet some = task.test;
  const std::int64_t count = std::min({std::int64_t(o_.probe_images), most, some.size()});
  some.indices.resize(std::size_t(count)), some.labels.resize(std::size_t(count));
  return some;
}

Config Plan::config() const {
  Config c;
  std::string seeds;
  for (const std::uint64_t seed : seeds_) seeds += cat(seeds.empty() ? "" : ",", seed);
  c.set("stream", o_.data.stream), c.set("data", o_.data.data), c.set("protocol", o_.protocol);
  c.set("tasks", o_.tasks), c.set("classes-per-task", o_.classes_per_task), c.set("draw", o_.draw);
  c.set("shuffle", o_.shuffle), c.set("domain", o_.domain), c.set("label-noise", o_.label_noise);
  c.set("train-on", o_.train_on), c.set("then", o_.then), c.set("head", o_.head);
  c.set("optimizer-state", o_.optimizer_state), c.set("methods", o_.methods), c.set("seeds", seeds);
  // What a stream does not have is not in its configuration.
  if (o_.steps > 0) c.set("steps", o_.steps);
  if (shifts()) c.set("shift", o_.shift);
  if (data_->parts().size() > 1) c.set("order", o_.order);
  if (o_.validation > 0.0) c.set("validation", o_.validation);
  if (!o_.sweep.empty()) {
    std::string sweep;
    for (const std::string& axis : o_.sweep) sweep += cat(sweep.empty() ? "" : ";", axis);
    c.set("sweep", sweep), c.set("sweep-seeds", o_.sweep_seeds), c.set("sweep-budget", o_.sweep_budget);
    c.set("sweep-tasks", o_.sweep_tasks);
  }
  c.set(kSettingsKey, settings_);
  if (init_) c.set(kInitKey, checksum_of(*init_));
  c.set("probe", o_.probe), c.set("probe-images", o_.probe_images), c.set("test-earlier", o_.test_earlier),
      c.set("test-during", o_.test_during), c.set("checkpoint-seconds", o_.checkpoint_seconds);
  write_shared(c, o_.data, o_.training, o_.model, machine_);
  return c;
}

}  // namespace eg
