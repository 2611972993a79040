// apps/trainer.h - one model, its optimizer and its step record: everything between a batch and changed weights.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "apps/activity_probe.h"
#include "apps/distributed/divided_weights.h"
#include "apps/distributed/gradient_buckets.h"
#include "apps/options.h"
#include "apps/run/checkpoint_tensors.h"
#include "apps/step_graph.h"
#include "apps/step_listener.h"
#include "apps/step_results.h"
#include "autograd/tape.h"
#include "data/loader.h"
#include "layers/heads.h"
#include "optim/ema.h"
#include "optim/optimizer.h"

namespace eg {

struct ModelWeights;

struct TrainerConfig {
  VitConfig vit;
  Device device;
  MethodSpec method;
  double lr = -1.0, weight_decay = -1.0, clip_norm = 1.0, smoothing = 0.0, ema = 0.0;
  int accumulate = 1;
  std::uint64_t seed = 1;
  bool record_steps = true;            // replay a recorded step on devices that can record one
  std::vector<double> mean, stddev;    // per channel, of pixel values in [0, 1]
  int zero = 0;                        // 1: with several ranks, each updates its pieces of the weights
  bool reduce_bf16 = false;            // gradients travel between ranks as bf16
  std::shared_ptr<Collectives> ranks;  // what shares every batch; null: this process alone
  /// Weights to start from (apps/weights/model_weights.h), made for `vit`; null: all are drawn by seed.
  std::shared_ptr<const ModelWeights> init;
  std::vector<std::string> freeze;  // patterns of parameter names that are not trained
  /// Hears of the parts of every step that is not a replay of a recording; must outlive the trainer. Null: nobody.
  StepListener* listener = nullptr;
};

/// Of the whole batch, all ranks together.
struct StepResult {
  double loss = 0.0;
  std::int64_t correct = 0, count = 0;
  bool applied = true;  // false: the gradient was not finite and the step changed nothing
};

struct Evaluation {
  double loss = 0.0, accuracy = 0.0;
  std::int64_t count = 0;
};

/// Thrown when the loss is not finite: the run stops, nothing was updated.
class Diverged : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The network that the configuration trains: `vit` with what its method changes in it.
VitConfig model_of(const TrainerConfig& config);

/// What the configuration's method does, in one line with every number: its defaults, the base rate, what it takes.
/// Throws Error{usage} as make_vit and make_optimizer do; cheap, since no weight is drawn.
std::string method_settings(const TrainerConfig& config);

/// What should be said before such a run begins, or nothing: prompts are learned on a network that knows nothing.
std::string caution(const TrainerConfig& config);

/// The batch that the next step will be given, or null where it is not known yet (Loader::ahead).
using NextBatch = std::function<const Batch*()>;

class Trainer {
 public:
  explicit Trainer(const TrainerConfig& config);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// With several ranks, all of them call the same functions in the same order; a batch is shared when its loader shared it
  /// (LoaderConfig::ranks), then sums, gradients and what is thrown are the same on all of them.
  ///
  /// One update from one batch; several, or none (count 0), where the method says so: then the result is the first one's.
  /// lr_factor: the schedule's value relative to the base rate. class_mask: u8 [K] or empty. next: asked when
  /// the step has been launched; the batch that it returns is copied to the device meanwhile.
  /// Throws Diverged when the loss is not finite, or after 20 skipped updates in a row.
  StepResult step(const Batch& batch, double lr_factor, const Tensor& class_mask = {}, const NextBatch& next = {});
  /// Forward only, on the moving average where there is one. Counts from the loader's current position to the epoch's
  /// end. Throws Diverged when the loss is not finite: an accuracy of such a network would mean nothing.
  Evaluation evaluate(Loader& loader, const Tensor& class_mask = {});

  /// The same with the head that was put away when `task` was over (--head multi), if there is one.
  Evaluation evaluate_task(std::int64_t task, Loader& loader, const Tensor& class_mask = {});

  /// The trained weights (not their moving average); probes read them.
  Vit& model() { return model_; }
  const std::vector<Param*>& params() const { return params_; }
  const ParamArena& arena() const { return arena_; }
  const GradientBuckets& buckets() const { return *buckets_; }
  Optimizer& optimizer() { return *optimizer_; }
  std::int64_t steps() const { return record().step; }
  std::int64_t skipped() const { return record().skipped; }
  std::int64_t updates() const { return record().step - record().skipped; }

  /// Leaves the gradient of one batch in the arena (not clipped, without penalties), and everything else as it was.
  /// Throws Diverged when the loss is not finite.
  void gradient_alone(const Batch& batch, const Tensor& class_mask);
  /// A task begins: the head is redrawn ("fresh"), zeroed ("zero"), kept ("keep") or put away and replaced by the
  /// task's own ("multi"; the first task takes the head of the start), then the optimizer's own boundary policy. Methods
  /// that ask for the new task's gradients get them from `batches`, one epoch of it, under `class_mask`.
  void begin_task(std::int64_t task, const std::string& head_policy, bool keep_optimizer_state,
                  const NextBatch& batches = {}, const Tensor& class_mask = {});
  /// What forward() needs beside the images; crop [B, 3] is for training.
  VitContext context(bool training, const Tensor& crop = {}) const;
  Device device() const { return config_.device; }
  Collectives& ranks() const { return *ranks_; }
  /// The values that a parameter had before the first update, as far as its task's head is not another one.
  std::vector<double> first_values(const Param& p) const;
  std::uint64_t seed() const { return config_.seed; }
  /// Steps that were replayed from a recording.
  std::int64_t replays() const { return graph_.replays(); }
  std::int64_t uploaded_ahead() const { return graph_.uploaded_ahead(); }

  /// Throws Error{usage} when the ranks' weights are not the same, bit for bit: then they no longer train one network.
  void check_ranks_agree();

  /// While it lives, arena().master and Param::master are whole, and so is what the forward pass reads, also where ranks divide the
  /// update; or of the head alone. All ranks call it together. Null where everything is whole anyway.
  [[nodiscard]] std::unique_ptr<DividedWeights::Whole> whole();
  [[nodiscard]] std::unique_ptr<DividedWeights::Whole> whole_head();
  /// The last step's gradient is whole from then on. All ranks call it together.
  void gather_gradient();

  /// Room for the heads of tasks 0 .. count-1, which had been put away when the checkpoint to restore was written.
  void expect_heads(std::int64_t count);
  /// Every tensor that a bitwise resume needs, by name, or this rank's part of it; restored() after their values were replaced. All
  /// ranks call both.
  std::vector<StateTensor> state();
  void restored();
  std::string describe() const;
  std::size_t peak_bytes() const;

 private:
  const StepRecord& record() const { return *static_cast<const StepRecord*>(host_record_.data()); }
  StepRecord& record() { return *static_cast<StepRecord*>(host_record_.data()); }
  void gather_weights();
  void upload_record();
  StepResult update(const Batch& batch, double lr_factor, const Tensor& class_mask, const NextBatch& next);
  struct Loss {
    Tensor reported, total;  // cross-entropy; with what the network adds to it, which is what learns
  };
  Loss loss_of(const StepInputs& in, std::int64_t begin, std::int64_t end, bool training, Tensor* correct);
  void enqueue_gradient(const StepInputs& in, StepOutputs* out, bool training,
                        const GradientBuckets::Reduced& on_gradient_final);
  void enqueue(const StepInputs& in, StepOutputs& out, StepContext& ctx);
  void measure_norm(const StepInputs& in, const StepContext& ctx) const;
  void begin_counting(const StepInputs& in);
  void finish_counting(const StepInputs& in);
  std::string divergence(const StepInputs& in, const std::string& which, bool training, double loss);
  void check_loss(bool shared, double mine, double total, const std::function<std::string()>& explain) const;
  void sum_shared(bool shared, std::span<double> values) const;
  void distrust_kernels();

  TrainerConfig config_;
  Vit model_;
  std::vector<Param*> params_;
  ParamArena arena_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Ema> ema_;
  std::unique_ptr<ActivityProbe> probe_;
  HeadBank heads_;
  Tensor host_record_, device_record_;
  Tensor mean_, stddev_;
  std::vector<Segment> all_gradients_, own_gradients_;  // all that is trained; of this rank's pieces
  std::shared_ptr<Collectives> ranks_;
  std::optional<GradientBuckets> buckets_;
  std::optional<Division> shares_;           // of the arena: what each rank adds up
  std::optional<Division> division_;         // the same, with --zero 1, and there are others
  std::unique_ptr<DividedWeights> divided_;  // then
  bool to_gather_ = false;                   // weights that ranks have updated since they gathered them
  StepGraph graph_;
  StepResults results_;
};

}  // namespace eg
