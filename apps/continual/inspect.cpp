// apps/continual/inspect.cpp - a checkpoint of a stream, looked at from inside: `evergrad diagnose`.
#include <algorithm>

#include "apps/continual/evaluate.h"
#include "apps/continual/plan.h"
#include "apps/diagnosis/inspection.h"
#include "apps/run/checkpoint.h"
#include "engine/error.h"
#include "optim/schedule.h"

namespace eg {
namespace {

/// Earlier tasks whose features are looked at beside the present one, and training images of each.
constexpr std::int64_t kMostProbed = 8, kProbeTraining = 1024;

/// Up to kMostProbed tasks of 0 .. now at even places, the first and the present one among them.
std::vector<std::int64_t> probed_tasks(std::int64_t now) {
  std::vector<std::int64_t> some;
  const std::int64_t count = std::min(now + 1, kMostProbed);
  for (std::int64_t i = 0; i < count; ++i) some.push_back(count > 1 ? i * now / (count - 1) : now);
  return some;
}

/// The run's task in hand once more, with cleared moments and counts.
void learn_again(OpenedRun& run, const Task& task, const std::function<void()>& begun,
                 const std::function<void()>& after_update) {
  const Plan& plan = run.plan;
  const Tensor mask = plan.training_mask(task);
  Loader once(plan.data(), task.train, task.transform, plan.loader(task, run.pair.seed, false));
  run.restore();
  run.trainer.begin_task(
      run.now, "keep", false, [&] { return once.next(); }, mask);
  begun();
  Loader loader(plan.data(), task.train, task.transform, plan.loader(task, run.pair.seed, true));
  const TrainingOptions& training = plan.options().training;
  const std::int64_t steps = plan.updates(task);
  for (std::int64_t step = 0; step < steps; ++step) {
    const Batch* batch = loader.next();
    if (batch == nullptr) batch = loader.next();  // the next epoch
    run.trainer.step(*batch, schedule_factor(parse_schedule(training.schedule), step, steps, training.warmup_steps),
                     mask);
    after_update();
  }
}

/// The weights from before the task: of another checkpoint, or what this one remembers of the task's start.
std::vector<double> weights_before(const Checkpoint& checkpoint, const std::string& other) {
  const auto load = [](const Checkpoint& c, const char* name) {
    const SafetensorsEntry* entry = c.tensors.find(name);
    return entry ? c.tensors.load(*entry, kCpu).to_host() : std::vector<double>{};
  };
  if (other.empty()) return load(checkpoint, "probe.start");
  std::vector<double> weights = load(open_checkpoint(other), "weights");
  check(!weights.empty(), Kind::format, [&] {
    return cat("--before ", other, " holds no tensor 'weights'; give a checkpoint that evergrad continual wrote");
  });
  return weights;
}

}  // namespace

int diagnose_continual(const ContinualOptions& options, const std::string& checkpoint_path, const DiagnoseOptions& d) {
  OpenedRun run(options, checkpoint_path);
  const Plan& plan = run.plan;
  const Pair& pair = run.pair;
  const Task task = run.stream->task(run.now);
  const SampleSet images = thinned(own_test(task), d.images);
  const auto loader = [&](const Task& of, const SampleSet& samples) {
    return std::make_unique<Loader>(plan.data(), samples, of.transform, plan.loader(of, pair.seed, false));
  };
  Subject subject{
      .trainer = run.trainer,
      .method = pair.method,
      .heading = run.describe(),
      .task = run.now + 1,
      .images = images.size(),
      .restore = [&] { run.restore(); },
      .test = [&] { return loader(task, images); },
      .training =
          [&] {
            LoaderConfig config = plan.loader(task, pair.seed, true);
            config.epochs = 0, config.shift_samples = 0;  // a gradual shift is over
            return std::make_unique<Loader>(plan.data(), task.train, task.transform, config);
          },
      .mask = plan.training_mask(task),
      .test_mask = plan.test_mask(task),
      .chance = 1.0 / double(std::max<std::size_t>(1, task.classes.size())),
      .before = weights_before(run.checkpoint, d.before),
      .relearn = [&](const auto& begun, const auto& after_update) { learn_again(run, task, begun, after_update); },
      .probed = {}};
  for (const std::int64_t t : d.quick ? std::vector<std::int64_t>{} : probed_tasks(run.now)) {
    const auto probed = std::make_shared<const Task>(run.stream->task(t));
    subject.probed.push_back({t + 1, probed->name,
                              [&, probed] { return loader(*probed, thinned(probed->train, kProbeTraining)); },
                              [&, probed] { return loader(*probed, thinned(own_test(*probed), d.images)); }});
  }
  inspect(subject, d);
  return 0;
}

}  // namespace eg
