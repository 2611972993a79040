// apps/diagnosis/inspection.cpp - see inspection.h.
#include "apps/diagnosis/inspection.h"

#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/diagnosis/inspection_tables.h"
#include "apps/diagnosis/linear_probe.h"
#include "apps/diagnosis/sharpness.h"
#include "apps/run/progress.h"
#include "autograd/functions.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

constexpr std::int64_t kGradients = 8;

/// What the head reads of every image, with its label.
LabelledFeatures features_of(Trainer& trainer, Loader& images) {
  LabelledFeatures all;
  VitProbe probe;
  probe.features = [&](const Tensor& f) {
    const std::vector<double> values = f.to_host();
    all.x.insert(all.x.end(), values.begin(), values.end());
  };
  const int classes = trainer.model().config.classes;
  while (const Batch* batch = images.next()) {
    VitContext c = trainer.context(false);
    c.probe = &probe;
    forward(trainer.model(), inputs_of(*batch, {}, classes, trainer.device()).images, c);
    all.labels.insert(all.labels.end(), batch->labels.begin(), batch->labels.end());
  }
  return all;
}

/// Of every probed task, what a linear classifier reads off the network as it is now.
std::vector<double> probe_accuracies(const Subject& subject) {
  std::vector<double> all;
  for (const ProbedTask& task : subject.probed) {
    LabelledFeatures train = features_of(subject.trainer, *task.train());
    LabelledFeatures test = features_of(subject.trainer, *task.test());
    std::map<std::int32_t, std::int32_t> number;  // labels of the head as 0, 1, ...
    for (const LabelledFeatures* f : {&train, &test})
      for (const std::int32_t l : f->labels) number.try_emplace(l, 0);
    std::int32_t classes = 0;
    for (auto& [label, n] : number) n = classes++;
    for (LabelledFeatures* f : {&train, &test})
      for (std::int32_t& l : f->labels) l = number[l];
    all.push_back(ridge_accuracy(train, test, subject.trainer.model().config.dim, classes));
  }
  return all;
}

/// Gradients of eight batches at the weights as they are.
void collect_gradients(Subject& subject, Probe& probe) {
  probe.task_begins();
  const std::unique_ptr<Loader> training = subject.training();
  for (std::int64_t i = 0, epoch = 0; i < kGradients; ++i) {
    const Batch* batch = training->next();
    if (batch == nullptr) training->seek(++epoch, 0), batch = training->next();
    probe.before_update(i, kGradients);
    subject.trainer.gradient_alone(*batch, subject.mask);
    probe.after_update(i, kGradients);
  }
}

/// Nothing was updated, and no task has passed: what compares with those says nothing.
void drop_comparisons(Diagnosis& d) {
  std::erase_if(d.blocks, [](const auto& q) {
    for (const char* end : {".update_ratio", ".drift", ".jump", "drift_task", "cka_task"})
      if (q.first.ends_with(end)) return true;
    return false;
  });
  std::erase_if(d.heads, [](const auto& q) { return q.first.ends_with("drift_task"); });
}

void measure_dearly(Subject& subject, Diagnosis& d) {
  Progress progress = Progress::standard();
  const auto accuracy = [&] { return plain_accuracy(subject.trainer, *subject.test(), subject.test_mask); };
  const auto say = [&](const std::string& what) { progress.update({.what = what}); };
  say("noise, pruning, quantisation");
  const std::unique_ptr<Loader> once = subject.test();
  d.model["accuracy"] = {accuracy()};
  measure_fragility(subject.trainer, *subject.test(), accuracy, subject.chance, d);
  say("curvature");
  measure_sharpness(subject.trainer, *once->next(), subject.mask,
                    adam_preconditioner(subject.trainer, parse_method(subject.method)), d);
  say("modules put back");
  if (!subject.before.empty()) measure_restores(subject.trainer, subject.before, accuracy, d);
}

/// Last, because it trains.
void measure_relearned(Subject& subject, Diagnosis& d) {
  Progress progress = Progress::standard();
  measure_frozen(
      subject.trainer, subject.before, subject.relearn,
      [&] { return plain_accuracy(subject.trainer, *subject.test(), subject.test_mask); },
      [&](const std::string& what) { progress.update({.what = cat("learning the task again, ", what)}); }, d);
  subject.restore();
}

}  // namespace

SampleSet thinned(const SampleSet& samples, std::int64_t most) {
  if (samples.size() <= most) return samples;
  SampleSet some{samples.split, {}, {}};
  for (std::int64_t i = 0; i < most; ++i) {
    const auto at = std::size_t(i * samples.size() / most);
    some.indices.push_back(samples.indices[at]), some.labels.push_back(samples.labels[at]);
  }
  return some;
}

double plain_accuracy(Trainer& trainer, Loader& images, const Tensor& class_mask) {
  double right = 0.0, count = 0.0;
  const int classes = trainer.model().config.classes;
  while (const Batch* batch = images.next()) {
    const StepInputs in = inputs_of(*batch, class_mask, classes, trainer.device());
    Tensor correct;
    cross_entropy(forward(trainer.model(), in.images, trainer.context(false)), in.labels, {}, class_mask, 0.0, 1.0,
                  &correct);
    for (const double c : correct.to_host()) right += c;
    count += double(batch->count);
  }
  check(count > 0.0, Kind::usage, [] { return std::string("an accuracy of no image; raise --images"); });
  return right / count;
}

void inspect(Subject& subject, const DiagnoseOptions& options) {
  check(subject.images >= 4, Kind::usage, [&] {
    return cat(subject.heading, ": there are ", subject.images, " test images, and a diagnosis needs 4; ",
               "raise --images or the run's --test-limit");
  });
  check(!options.relearn || (subject.relearn && !subject.before.empty()), Kind::usage, [&] {
    return cat(subject.heading, ": --relearn starts from the weights from before the task, which ",
               subject.relearn ? "this checkpoint does not hold; give --before CHECKPOINT, one from before the task"
                               : "training on one data set does not have");
  });
  Probe probe(subject.trainer, {.every_rank = true, .fixed_images = subject.images});
  probe.measure(*subject.test(), *subject.test());  // the first network: what drift is measured from
  const std::vector<double> untrained = options.quick ? std::vector<double>{} : probe_accuracies(subject);
  subject.restore();
  collect_gradients(subject, probe);
  Diagnosis found = probe.measure(*subject.test(), *subject.test());
  drop_comparisons(found);
  if (!options.quick) {
    measure_dearly(subject, found);
    found.model["probe.accuracy"] = probe_accuracies(subject);
    found.model["probe.untrained_accuracy"] = untrained;
  }
  if (options.relearn) measure_relearned(subject, found);
  std::cout << subject.heading << ", " << subject.images << " test images\n\n";
  print_blocks(found, subject.trainer.model().config.depth);
  print_restores(found, subject.trainer.model().config.depth);
  print_frozen(found);
  if (!options.quick && subject.before.empty())
    std::cout << "Which modules hold what was learned: give --before CHECKPOINT, one from before the task\n\n";
  print_probes(found, subject.probed);
  print_model(found);
  if (options.json.empty()) return;
  LogLine line("diagnosis");
  line.add("method", subject.method).add("seed", subject.trainer.seed());
  if (subject.task > 0) line.add("task", subject.task);
  std::vector<double> numbers;
  for (const ProbedTask& task : subject.probed) numbers.push_back(double(task.number));
  if (!options.quick) line.add("probed_tasks", std::span<const double>(numbers));
  add_to(line, found);
  write_file(options.json, nlohmann::json::parse(line.text()).dump(1) + "\n");
  std::cout << "\nEvery number: " << options.json << '\n';
}

}  // namespace eg
