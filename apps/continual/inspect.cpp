// apps/continual/inspect.cpp - a checkpoint of a stream, looked at from inside: `evergrad diagnose`.
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/continual/evaluate.h"
#include "apps/continual/plan.h"
#include "apps/diagnosis/diagnosis.h"
#include "apps/run/checkpoint.h"
#include "apps/run/table.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

/// A quantity of a block, or a dash where it was not measured.
std::string cell(const Diagnosis& d, const std::string& name, int block, int decimals) {
  const auto at = d.blocks.find(name);
  if (at == d.blocks.end() || !std::isfinite(at->second[std::size_t(block)])) return "-";
  return fixed(at->second[std::size_t(block)], decimals);
}

void print_blocks(const Diagnosis& d, int depth) {
  TextTable features(
      {"block", "token rank", "stable rank", "99% energy", "active %", "alive %", "dead %", "dormant %"});
  TextTable attention({"block", "entropy", "distance", "class self", "head similarity", "largest logit",
                       "drift from start", "CKA with start"});
  TextTable modules({"block", "module", "norm", "from start", "spectral norm", "rank", "stable rank", "gradient",
                     "grad cosine", "grad rank"});
  const auto percent = [&](const char* name, int b) {
    const auto at = d.blocks.find(name);
    return at == d.blocks.end() ? std::string("-") : fixed(100 * at->second[std::size_t(b)], 1);
  };
  for (int b = 0; b < depth; ++b) {
    const std::string block = std::to_string(b);
    features.add_row({block, cell(d, "tokens.effective_rank", b, 1), cell(d, "tokens.stable_rank", b, 2),
                      cell(d, "tokens.energy_rank", b, 0), percent("units.active", b), percent("units.alive", b),
                      percent("units.dead", b), percent("units.dormant", b)});
    attention.add_row({block, cell(d, "attention.entropy", b, 3), cell(d, "attention.distance", b, 2),
                       cell(d, "attention.class_self", b, 3), cell(d, "attention.head_similarity", b, 3),
                       cell(d, "attention.largest_logit", b, 1), cell(d, "attention.drift_first", b, 4),
                       cell(d, "tokens.cka_first", b, 3)});
    for (const char* name : kModuleNames) {
      const std::string weight = std::string("weight.") + name, gradient = std::string("gradient.") + name;
      modules.add_row({block, name, cell(d, weight + ".norm", b, 2), cell(d, weight + ".from_start", b, 2),
                       cell(d, weight + ".spectral_norm", b, 2), cell(d, weight + ".effective_rank", b, 1),
                       cell(d, weight + ".stable_rank", b, 1), cell(d, gradient + ".norm", b, 4),
                       cell(d, gradient + ".cosine", b, 2), cell(d, gradient + ".effective_rank", b, 1)});
    }
  }
  std::cout << "Features and hidden units, after each block\n" << features.text() << '\n';
  std::cout << "Attention; start: the first network of this seed\n" << attention.text() << '\n';
  std::cout << "Matrices, and gradients of eight batches\n" << modules.text() << '\n';
}

void print_model(const Diagnosis& d) {
  TextTable table({"the whole network", "value"});
  const std::map<std::string, std::string> words = {
      {"features.effective_rank", "effective rank of what the head reads"},
      {"features.stable_rank", "its stable rank"},
      {"features.srank", "directions that hold 99% of its singular values"},
      {"features.norm", "root mean square length of what the head reads"},
      {"hessian.top", "largest eigenvalue of the loss's Hessian (- : did not converge, or bf16)"},
      {"robustness.noise", "share of accuracy that survives weight noise (area)"},
      {"robustness.pruning", "share that survives magnitude pruning (area)"},
      {"robustness.quantisation", "share that survives quantisation to 16..3 bits (area)"}};
  for (const auto& [name, values] : d.model) {
    const auto at = words.find(name);
    table.add_row({at == words.end() ? name : at->second, std::isfinite(values[0]) ? fixed(values[0], 3) : "-"});
  }
  std::cout << table.text();
}

}  // namespace

int diagnose_continual(const ContinualOptions& options, const std::string& checkpoint_path, const DiagnoseOptions& d) {
  const Plan plan(options);
  const Checkpoint checkpoint = open_checkpoint(checkpoint_path);
  const Position at = restorable_position(checkpoint, checkpoint_path, plan);
  const Pair& pair = plan.pairs()[at.run];
  const auto stream = plan.stream(pair.seed);
  Trainer trainer(with_stats(plan.trainer(pair, *stream), plan, stream->task(0)));
  const std::int64_t now = at.begun ? at.task : std::max<std::int64_t>(at.task - 1, 0);
  const Task task = stream->task(now);
  SampleSet images = own_test(task);
  const std::int64_t count = std::min<std::int64_t>(d.images, images.size());
  images.indices.resize(std::size_t(count)), images.labels.resize(std::size_t(count));
  check(count >= 4, Kind::usage,
        [&] { return cat("task ", now + 1, " has ", count, " test images; a diagnosis needs 4"); });
  const auto loader = [&] { return Loader(plan.data(), images, task.transform, plan.loader(task, pair.seed, false)); };

  Probe probe(trainer, {.every_rank = true, .fixed_images = count});
  {
    Loader own = loader(), fixed = loader();
    probe.measure(own, fixed);  // the first network: what drift is measured from
  }
  plan.expect_heads(trainer, at);
  restore_trainer(checkpoint, trainer);
  const Tensor mask = plan.training_mask(task);
  probe.task_begins();
  constexpr std::int64_t kGradients = 8;
  LoaderConfig config = plan.loader(task, pair.seed, true);
  config.epochs = kGradients;
  Loader training(plan.data(), task.train, task.transform, config);
  for (std::int64_t i = 0, epoch = 0; i < kGradients; ++i) {
    const Batch* batch = training.next();
    if (batch == nullptr) training.seek(++epoch, 0), batch = training.next();
    probe.before_update(i, kGradients);
    trainer.gradient_alone(*batch, mask);
    probe.after_update(i, kGradients);
  }
  Loader own = loader(), fixed = loader();
  Diagnosis found = probe.measure(own, fixed);
  // Nothing was updated, and no task has passed: what compares with those says nothing.
  std::erase_if(found.blocks, [](const auto& q) {
    for (const char* end : {".update_ratio", ".drift", ".jump", "drift_task", "cka_task"})
      if (q.first.ends_with(end)) return true;
    return false;
  });
  std::erase_if(found.heads, [](const auto& q) { return q.first.ends_with("drift_task"); });
  if (!d.quick) {
    Loader once = loader();
    const Batch& batch = *once.next();
    const auto accuracy = [&] { return test_task(plan, pair, trainer, task, images).accuracy; };
    measure_fragility(trainer, batch, mask, accuracy, 1.0 / double(std::max<std::size_t>(1, task.classes.size())),
                      found);
  }
  std::cout << pair.method << ", seed " << pair.seed << ", " << (at.begun ? "in" : "after") << " task "
            << (at.begun ? at.task + 1 : at.task) << " of " << stream->tasks() << ", " << count << " test images\n\n";
  print_blocks(found, trainer.model().config.depth);
  print_model(found);
  if (!d.json.empty()) {
    LogLine line("diagnosis");
    line.add("method", pair.method).add("seed", pair.seed).add("task", now + 1);
    add_to(line, found);
    write_file(d.json, nlohmann::json::parse(line.text()).dump(1) + "\n");
    std::cout << "\nEvery number: " << d.json << '\n';
  }
  return 0;
}

}  // namespace eg
