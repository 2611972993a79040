// apps/continual/plan.h - what the flags of a continual run mean: its methods and seeds, its streams, what happens to
// the head, and the configuration with every default and every "auto" replaced by what it became.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/continual/continual.h"
#include "apps/continual/position.h"
#include "apps/run/config.h"
#include "apps/setup.h"
#include "apps/trainer.h"
#include "data/stream.h"

namespace eg {

/// One method with one seed: a run of its own within the command.
struct Pair {
  std::string method;
  std::uint64_t seed = 0;
};

/// When a run is diagnosed: after every so many tasks, after every so many updates; 0: not.
struct ProbeCadence {
  std::int64_t tasks = 0, steps = 0;
  bool any() const { return tasks > 0 || steps > 0; }
};
/// "every-task", "every-10-tasks", "every-500-steps", "none". Throws Error{usage}.
ProbeCadence parse_probe_cadence(const std::string& text);

class Plan {
 public:
  /// Opens the data and builds every method once, so that whatever a person must change is said before a folder is
  /// made. Throws Error.
  /// ranks: processes that will share every batch.
  explicit Plan(const ContinualOptions& given, int ranks = 1);

  const ContinualOptions& options() const { return o_; }  // resolved
  const ResolvedMachine& machine() const { return machine_; }
  const std::shared_ptr<const Dataset>& data() const { return data_; }
  const std::vector<Pair>& pairs() const { return pairs_; }
  const std::vector<std::string>& methods() const { return methods_; }
  /// Of each method, what it does, with every number.
  const std::vector<std::string>& settings() const { return settings_; }
  std::shared_ptr<const TaskStream> stream(std::uint64_t seed) const;
  /// The head's policy as Trainer::begin_task takes it.
  std::string trainer_head() const { return o_.head == "growing" || o_.head == "masked" ? "keep" : o_.head; }
  /// Outputs that take part in the softmax: in training those of the task (masked), or what the stream says (all seen
  /// so far, for classes that arrive); in a test always what the stream says. Empty: all.
  Tensor training_mask(const Task& task) const;
  Tensor test_mask(const Task& task) const;
  TrainerConfig trainer(const Pair& pair, const TaskStream& stream) const;
  LoaderConfig loader(const Task& task, std::uint64_t seed, bool training) const;
  /// Updates of a task, and the passes over its images that they begin.
  std::int64_t updates(const Task& task) const;
  std::int64_t epochs(const Task& task) const;
  /// True when some task's images come from another domain than those before it.
  bool shifts() const { return o_.protocol == "domain" || o_.then == "domain"; }
  /// True when the head that a task leaves can still be asked about earlier tasks.
  bool knows_earlier() const { return o_.head != "fresh" && o_.head != "zero"; }
  /// Room for the heads that a checkpoint at this position holds.
  void expect_heads(Trainer& trainer, const Position& at) const;
  const ProbeCadence& cadence() const { return cadence_; }
  /// The first test images of a task: at most `most`, and no more than --probe-images.
  SampleSet probe_samples(const Task& task, std::int64_t most) const;
  /// What config.toml holds.
  Config config() const;
  /// What --init changed in the weights, for people.
  const std::vector<std::string>& init_notes() const { return init_notes_; }

 private:
  StreamConfig stream_config(std::uint64_t seed) const;
  std::int64_t per_epoch(const Task& task) const;
  void resolve_head();
  void resolve_draw();
  void check_frozen_head() const;
  void check_test_limit() const;
  void check_test_earlier() const;

  ContinualOptions o_;
  ResolvedMachine machine_;
  std::vector<std::string> methods_, settings_;
  std::vector<std::uint64_t> seeds_;
  std::vector<Pair> pairs_;
  ProbeCadence cadence_;
  std::shared_ptr<const Dataset> data_;
  std::shared_ptr<const ModelWeights> init_;
  std::vector<std::string> init_notes_;
};

}  // namespace eg
