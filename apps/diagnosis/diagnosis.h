// apps/diagnosis/diagnosis.h - what a network looks like from inside, task after task: every quantity of methods.md D,
// by block and by module. A Probe goes along with a training run; nothing it does changes the run.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "apps/diagnosis/attention_maps.h"
#include "apps/diagnosis/gradient_window.h"
#include "apps/diagnosis/modules.h"
#include "apps/trainer.h"
#include "engine/log.h"

namespace eg {

struct ProbeOptions {
  bool gradients = true;           // keep a window of the last gradients and the weights of the task's start
  bool every_rank = false;         // also decompose matrices that are wider than 512
  std::int64_t fixed_images = 64;  // what Probe::measure's second loader brings
  std::int64_t map_images = 16;    // the first of them, whose attention is compared (fewer where maps are large)
  int window = 8;                  // gradients per module
};

/// Numbers by name. The name says what was measured: "weight.v.norm", "units.dormant", "attention.entropy".
using Quantities = std::map<std::string, std::vector<double>>;
struct Diagnosis {
  Quantities blocks;                                                // one number per transformer block
  Quantities heads;                                                 // blocks x heads, block by block
  Quantities model;                                                 // one number
  std::map<std::string, std::vector<std::vector<double>>> spectra;  // by block, descending, thinned to 64 values
  std::vector<std::vector<double>> maps;  // by image and block: what the class token (or the mean token) looks at
};
/// Shares of one block's hidden units and entries, by the definitions of methods.md D.2 (they differ, so all are there).
struct UnitShares {
  double positive = 0.0;   // entries with z > 0 (fau_sign)
  double magnitude = 0.0;  // entries with |gelu(z)| > 0.01 (fau_mag)
  double gradient = 0.0;   // entries with |gelu'(z)| > 0.01: gradient can pass (fau_grad)
  double alive = 0.0;      // units with z > 0 in at least 1% of their entries (unit_alive)
  double dead = 0.0;       // units whose activation never exceeds 0.01 (dead_neg)
  double dormant = 0.0;    // units whose mean |gelu| is at most 2.5% of the layer's (redo, mean-one score)
  /// counts [5, units] as UnitStatistics adds them up over `rows` entries per unit.
  static UnitShares of(std::span<const double> counts, double rows);
};

/// As fields of a log line: "blocks": {name: [...]}, "heads", "model", "spectra", "maps".
void add_to(LogLine& line, const Diagnosis& d);

class Probe {
 public:
  Probe(Trainer& trainer, const ProbeOptions& options);
  /// Remembers the weights that a task begins with.
  void task_begins();
  /// Around every update of a task, `step` of `steps`: remembers the gradients of its first and last updates, and what
  /// the last one does to the weights.
  void before_update(std::int64_t step, std::int64_t steps);
  void after_update(std::int64_t step, std::int64_t steps);
  /// Runs both sets of images forward, without augmentation: features and units on `images`; attention and drift on
  /// `fixed`, which must be the same images every time. Becomes the reference of the next call's drift.
  Diagnosis measure(Loader& images, Loader& fixed);
  /// What the next measurements depend on; a checkpoint holds it.
  std::vector<NamedTensor> state();

 private:
  void measure_features(Loader& images, Diagnosis& d);
  void measure_attention(Loader& fixed, Diagnosis& d);
  void measure_weights(Diagnosis& d);
  void measure_circuits(const std::vector<double>& master, Diagnosis& d);
  void measure_gradients(Diagnosis& d);
  void compare(const std::string& name, int block, std::span<const double> now, Tensor& reference, Diagnosis& d);

  Trainer& trainer_;
  ProbeOptions options_;
  std::vector<ModuleView> modules_;
  std::vector<float> initial_;        // [arena]: the first weights of the block matrices
  Tensor start_;                      // [arena]: weights at the task's start
  std::vector<double> before_last_;   // weights before the task's last update; only alive within it
  std::vector<double> update_ratio_;  // by module
  GradientWindow window_;
  Tensor first_norms_;                     // f64 [modules]: mean gradient norm of the task's first updates
  Tensor last_norms_;                      // f64 [modules]: norm of the last gradient of the task before
  Tensor maps_first_, maps_last_;          // f32 [blocks, images, heads, N, N]
  Tensor features_first_, features_last_;  // f32 [blocks, images, C]
  Tensor measured_;                        // i32 [1]: measurements so far
  std::int64_t map_images_ = 0;
};

/// The share of accuracy that survives noise (five draws), magnitude pruning by matrix or by one threshold for all
/// ("global_pruning"), quantisation, and the loss of whole hidden units or heads, those of least contribution first:
/// model["robustness.noise"] and so on of all block matrices, "robustness.noise.v", ".ffn" and ".last_block" of those alone (units,
/// heads and the global threshold: no .v and .ffn), and by the same names "robust_level.noise", at which nine tenths of it are
/// left (the strength of noise, the share taken away, the bits); `accuracy` tests the network as it is, `images` show what units
/// and heads contribute. Dear: some 250 passes over the images. Weights are put back exactly.
void measure_fragility(Trainer& trainer, Loader& images, const std::function<double()>& accuracy, double chance,
                       Diagnosis& d);

}  // namespace eg
