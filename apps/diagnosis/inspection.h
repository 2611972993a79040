// apps/diagnosis/inspection.h - `evergrad diagnose`: everything that the weights of a checkpoint say about the network,
// whichever command trained it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apps/diagnosis/counterfactual.h"

namespace eg {

struct DiagnoseOptions {
  std::string json;
  std::string before;  // a checkpoint from before the task; empty: what this one remembers of the task's start
  int images = 256;
  bool quick = false;
  bool relearn = false;  // also learn the task again, with one module after the other held fast
};

using Images = std::function<std::unique_ptr<Loader>()>;

/// A task whose knowledge is looked for in the features; without augmentation, the same images every time.
struct ProbedTask {
  std::int64_t number = 0;  // from 1
  std::string name;
  Images train, test;
};

/// What is looked at, and where its images come from. The trainer holds the first network of its seed.
struct Subject {
  Trainer& trainer;
  std::string method, heading;    // "adamw"; "adamw, seed 1, after task 3 of 10"
  std::int64_t task = 0;          // in the log's count, from 1; 0: training on one data set
  std::int64_t images = 0;        // test images, of which `test` brings the same ones every time
  std::function<void()> restore;  // puts the checkpoint's weights and optimizer state into the trainer
  Images test, training;          // training: batches for gradients, an epoch or more
  Tensor mask, test_mask;         // u8 [K] or empty: outputs that take part in the loss; in a test
  double chance = 0.0;
  std::vector<double> before;  // [arena]: weights before the task; empty: not known
  Learn relearn;               // the task from its beginning; empty: there is no task
  std::vector<ProbedTask> probed;
};

/// `most` samples at even places, so that every class keeps its share; all when there are fewer.
SampleSet thinned(const SampleSet& samples, std::int64_t most);

/// Share of the images that the trained weights (not their moving average) classify correctly; class_mask: u8 [K] or
/// empty. Throws Error{usage} for no image.
double plain_accuracy(Trainer& trainer, Loader& images, const Tensor& class_mask);

/// Restores, measures, prints, and writes options.json where it was asked for. Throws Error{usage} for fewer than four
/// test images, or when the task is to be learned again and its beginning is not known, Error{io} when the file cannot be written.
void inspect(Subject& subject, const DiagnoseOptions& options);

}  // namespace eg
