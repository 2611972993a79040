// apps/continual/evaluate.cpp - see evaluate.h.
#include "apps/continual/evaluate.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/continual/position.h"
#include "apps/distributed/launch.h"
#include "apps/run/checkpoint.h"
#include "apps/run/table.h"

namespace eg {
namespace {

Evaluation test_under(const Plan& plan, const Pair& pair, Trainer& trainer, const Task& task, const SampleSet& samples,
                      const Tensor& mask) {
  LoaderConfig config = plan.loader(task, pair.seed, false);
  share_batches(config, trainer.ranks());
  Loader loader(plan.data(), samples, task.transform, config);
  return trainer.evaluate_task(task.index, loader, mask);
}

/// True when every class of `part` takes part in `whole` too.
bool within(const std::vector<std::uint8_t>& part, const std::vector<std::uint8_t>& whole) {
  return part.size() == whole.size() &&
         std::equal(part.begin(), part.end(), whole.begin(), [](auto a, auto b) { return a <= b; });
}

/// Where the run stood when the checkpoint was written.
Position restorable_position(const Checkpoint& checkpoint, const std::string& path, const Plan& plan) {
  check(checkpoint.state.contains("position"), Kind::format,
        [&] { return cat(path, " is not a checkpoint of 'evergrad continual', but its configuration is one's"); });
  const Position at = position_from_json(checkpoint.state.at("position"));
  check(!checkpoint.tensors.entries().empty() && at.run < plan.pairs().size(), Kind::format, [&] {
    return cat(path,
               " was written between two runs (a method with a seed) and holds no weights; give an older .json of ",
               "its folder");
  });
  return at;
}

}  // namespace

OpenedRun::OpenedRun(const ContinualOptions& options, const std::string& checkpoint_path)
    : plan(options),
      checkpoint(open_checkpoint(checkpoint_path)),
      at(restorable_position(checkpoint, checkpoint_path, plan)),
      pair(plan.pairs()[at.run]),
      stream(plan.stream(pair.seed)),
      now(at.begun ? at.task : std::max<std::int64_t>(at.task - 1, 0)),
      trainer(with_stats(plan.trainer(pair, *stream), plan, stream->task(0))) {}

void OpenedRun::restore() {
  plan.expect_heads(trainer, at);
  std::vector<StateTensor> all = trainer.state();
  const auto present = [&](const std::string& name) {
    return std::any_of(all.begin(), all.end(), [&](const NamedTensor& t) { return t.name == name; });
  };
  for (const SafetensorsEntry& entry : checkpoint.tensors.entries()) {
    // Only going on needs these; the anchor exists where a run began with --init, whose file may be gone.
    const bool spare = entry.name.rfind("probe.", 0) == 0 || entry.name == "optimizer.fresh.anchor";
    if (spare && !present(entry.name)) all.push_back({{entry.name, Tensor::zeros(entry.shape, entry.dtype, kCpu)}, {}});
  }
  checkpoint.restore(all);
  trainer.restored();
}

std::string OpenedRun::describe() const {
  return cat(pair.method, ", seed ", pair.seed, ", ", at.begun ? "in" : "after", " task ",
             at.begun ? at.task + 1 : at.task, " of ", stream->tasks());
}

/// The test samples of the classes that the task brought; the others belong to earlier tasks.
SampleSet own_test(const Task& task) {
  const std::set<std::int32_t> own(task.head_labels.begin(), task.head_labels.end());
  SampleSet some{task.test.split, {}, {}};
  for (std::int64_t i = 0; i < task.test.size(); ++i) {
    if (!own.contains(task.test.labels[std::size_t(i)])) continue;
    some.indices.push_back(task.test.indices[std::size_t(i)]);
    some.labels.push_back(task.test.labels[std::size_t(i)]);
  }
  return some;
}

TrainerConfig with_stats(TrainerConfig config, const Plan& plan, const Task& first) {
  const ModelOptions& m = plan.options().model;
  const ChannelStats s = channel_stats(*plan.data(), first.train, {m.channels, m.image_size});
  config.mean = s.mean, config.stddev = s.stddev;
  return config;
}

Evaluation test_task(const Plan& plan, const Pair& pair, Trainer& trainer, const Task& task, const SampleSet& samples) {
  return test_under(plan, pair, trainer, task, samples, plan.test_mask(task));
}

std::vector<Evaluation> test_earlier(const Plan& plan, const Pair& pair, Trainer& trainer, const TaskStream& stream,
                                     std::int64_t now) {
  const Task present = stream.task(now);
  std::vector<Evaluation> all;
  for (std::int64_t t = 0; t <= now; ++t) {
    const Task task = stream.task(t);
    const Task& rules = within(task.class_mask, present.class_mask) ? present : task;
    all.push_back(test_under(plan, pair, trainer, task, own_test(task), plan.test_mask(rules)));
  }
  return all;
}

int evaluate_continual(const ContinualOptions& options, const std::string& checkpoint_path) {
  OpenedRun run(options, checkpoint_path);
  run.restore();
  std::cout << run.describe() << '\n';
  TextTable table({"task", "name", "test accuracy %", "loss", "images"});
  const auto row = [&](std::int64_t t, const Evaluation& e) {
    table.add_row({std::to_string(t + 1), run.stream->task(t).name, fixed(100 * e.accuracy, 2), fixed(e.loss, 4),
                   std::to_string(e.count)});
  };
  if (run.plan.knows_earlier()) {
    const std::vector<Evaluation> all = test_earlier(run.plan, run.pair, run.trainer, *run.stream, run.now);
    for (std::int64_t t = 0; t <= run.now; ++t) row(t, all[std::size_t(t)]);
  } else {
    const Task task = run.stream->task(run.now);
    row(run.now, test_task(run.plan, run.pair, run.trainer, task, own_test(task)));
  }
  std::cout << table.text();
  return 0;
}

}  // namespace eg
