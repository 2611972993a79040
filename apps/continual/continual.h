// apps/continual/continual.h - the main job: a stream of tasks, several methods, several seeds, a table at the end.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "apps/options.h"
#include "apps/run/rank_options.h"

namespace CLI {
class App;
}

namespace eg {

struct ContinualOptions {
  ModelOptions model;
  DataOptions data;
  TrainingOptions training;
  MachineOptions machine;
  RankOptions ranks;
  std::string protocol = "class-subset", draw = "auto", shuffle = "pixels", domain = "rotation", then;
  std::string shift = "abrupt";   // domain: abrupt | gradual
  std::string order = "in-turn";  // of the data sets of a sequence: in-turn | interleaved | mixed
  std::int64_t steps = 0;         // updates per task; 0: training.epochs passes
  std::string train_on = "new";   // class-incremental: new | seen
  double label_noise = 0.5;
  int tasks = 10, classes_per_task = 5;
  std::string methods = "adamw,sgd,arrow", seeds = "1";
  double validation = 0.0;         // share of the training images that the test uses instead of test images
  std::vector<std::string> sweep;  // "lr=1e-4,1e-3", "arrow.kappa=0,10"
  std::string sweep_seeds = "1001";
  int sweep_budget = 0, sweep_tasks = 0, jobs = 1;
  bool ranks_as_jobs = false;   // the ranks of a start share the runs (apps/continual/crew.h)
  double stale_seconds = 60.0;  // silence after which a rank's run is taken over
  std::string head = "auto", optimizer_state = "keep";
  std::string out = "runs/continual";
  bool resume = false;
  double checkpoint_seconds = 30.0;
  std::string probe = "every-task";  // every-task | every-N-tasks | every-N-steps | none
  int probe_images = 256;
  bool test_earlier = false, test_during = false;
};

/// The flags of `evergrad continual`.
void add_continual_options(CLI::App& sub, ContinualOptions& o, std::string& config);

/// Runs everything that is not finished yet. Returns the exit code: 0, 130 or 143 after a signal (resumable), 1 when
/// every run diverged. Throws Error for anything that a person must change.
int run_continual(const ContinualOptions& options);

/// Prints the test accuracy of a checkpoint of that run, on the task in hand and on the earlier ones that its network
/// still has a head for. Throws Error{io|format}.
int evaluate_continual(const ContinualOptions& options, const std::string& checkpoint);

struct DiagnoseOptions;
/// Prints what the weights of a checkpoint of that run say about the network (apps/diagnosis). Throws Error{io|format}.
int diagnose_continual(const ContinualOptions& options, const std::string& checkpoint, const DiagnoseOptions& d);

}  // namespace eg
