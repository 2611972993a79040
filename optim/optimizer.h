// optim/optimizer.h - what an update rule is to the training loop. Adding one: one file with a struct that derives from
// Optimizer, one line in registry.cpp; from outside, a call of register_method (registry.h).
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kernels.h"
#include "engine/prompt_pool.h"
#include "engine/tensor_part.h"
#include "layers/param.h"

namespace eg {

struct Division;  // engine/collectives/division.h

/// The model as optimizers see it.
struct Parameters {
  std::span<Param* const> list;  // forward order
  ParamArena* arena = nullptr;
  int depth = 0;  // number of transformer blocks
  /// Set: this rank updates its pieces of the arena alone, and keeps state for these alone (optim/arena_pieces.h).
  const Division* division = nullptr;
  /// Set: sums over elements are sums over ranks of what each finds in its pieces of this one, as they must be with `division`
  /// (which is the same then). So they have the same bits whether ranks divide the update or not. Null: each adds up all.
  const Division* sums = nullptr;
};

/// "arrow:blocks=last-4:window=8" is read as name "arrow" with options; values are text until the method reads them.
struct MethodSpec {
  std::string name;
  std::map<std::string, std::string> options;
  std::vector<MethodSpec> with;  // interventions that work beside it
};
/// Reads "arrow:blocks=last-4:window=8"; commas separate options as well as colons, and "last:4" is "last-4", "0,3" is
/// "0+3". "sgd+l2init:strength=1e-3+nap" is a base with interventions; an intervention alone stands on AdamW. Throws
/// Error{usage} naming the broken part, or listing the methods when the name is unknown.
MethodSpec parse_method(std::string_view text);
/// The text that parse_method reads as this spec, options in alphabetical order.
std::string to_text(const MethodSpec& spec);

/// What a method changes in the network that it trains.
struct ModelChange {
  bool crelu = false;  // concatenated ReLU in the MLPs, with two thirds of their hidden units
  PromptPool prompts;  // with a pool everything but prompts, keys and head is frozen
};
/// The changes that the parts of a method ask for. The model is built with them, then the method with the model.
ModelChange model_change(const MethodSpec& spec);

/// Values that a step needs and that come from the loop.
struct StepContext {
  StepRecord* device_step = nullptr;  // the record that kernels read
  StepRecord* host_step = nullptr;    // its host image; written to the device before the step begins
  double lr_factor = 1.0;             // schedule value relative to the base rate, in [0, 1] after warm-up
  Stream stream;
  std::int64_t images = 0;       // of this step
  std::int64_t task = 0;         // task_boundary: number of the task that begins, from 0
  bool head_changed = false;     // task_boundary: the head has other weights than after the last step
  bool weights_changed = false;  // task_boundary: a method wrote weights
  /// task_boundary: runs forward and backward over the whole task that begins, without augmentation or an update, and calls
  /// `each` whenever a batch's gradient stands in the arena (not clipped, without penalties). Empty where the loop has no
  /// task at hand.
  std::function<void(const std::function<void()>& each)> gradients_of_task;
  /// updates_from_batch: measures the share of positive hidden entries on the task's probe images.
  std::function<double()> active_share;
};

/// The hidden units of one block's MLP, some of which a method replaces from time to time.
struct Units {
  Param *fc1_weight = nullptr, *fc1_bias = nullptr, *fc2_weight = nullptr;  // [F,I], [F], [O,F]
  Tensor steps;                                                             // i32 [F]: updates since the unit was new
  Param* fc2_bias = nullptr;                                                // [O]
};

/// An update rule, with whatever works beside it. The loop calls its functions in the order in which they stand here.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual std::string name() const = 0;
  /// How many updates the batch that has just arrived is good for; each of them is a step of its own. On the host,
  /// between steps. Not 1 for methods that learn more or less often; probe_images is then how many images of each task
  /// the loop keeps to measure ctx.active_share on.
  virtual std::int64_t updates_from_batch(StepContext& ctx) { return (void)ctx, 1; }
  virtual std::int64_t probe_images() const { return 0; }
  /// Writes learning rates into host_step's slots for this step.
  virtual void prepare(StepContext& ctx) = 0;
  /// Parameter group `group` (a transformer block index, or depth for everything else) has its final gradient; called
  /// inside backward. Only enqueues device work. ARROW observes here.
  virtual void on_gradient_final(int group, StepContext& ctx) { (void)group, (void)ctx; }
  /// True for sharpness-aware methods, which take the gradient that counts elsewhere: the loop makes a first gradient
  /// without on_gradient_final, calls ascend, and makes the second at the weights it returns: laid out as the arena, of
  /// the forward pass's type, valid until the next step. Both passes see the same images and masks. Only enqueues.
  virtual bool ascends() const { return false; }
  virtual Tensor ascend(StepContext& ctx) { return (void)ctx, Tensor{}; }
  /// All gradients are final and grad_norm/finite/clip_scale stand in the device record: update the parameters, refresh
  /// the working copy, advance counts. A non-finite step must change nothing.
  virtual void step(StepContext& ctx) = 0;
  /// Runs after the device has finished the step, on the host; may read the device and change weights.
  virtual void after_step(StepContext& ctx) { (void)ctx; }
  /// From now on an element of these matrices counts the updates of its unit, not of the whole model: a new unit's
  /// moments are empty, and a large count would make its first steps three times too long (methods.md A.2).
  virtual void count_by_unit(const std::vector<Units>& units) { (void)units; }
  /// Visits state that has one number per weight, laid out as the arena; who replaces a unit clears its part.
  virtual void visit_moments(const std::function<void(Tensor&)>& visit) { (void)visit; }
  /// The MLP of this block has new units: gradients that are remembered of it belong to weights that are no more.
  virtual void units_replaced(int block) { (void)block; }
  /// A new task begins. keep_state == false clears moments and counts. ARROW applies its own boundary policy.
  virtual void task_boundary(StepContext& ctx, bool keep_state) = 0;
  /// Visits every state tensor by name, for checkpoints. Small host-side numbers travel as f64 tensors too.
  virtual void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) = 0;
  /// Where ranks divide the update: which elements of the state tensor of this name this rank has visited. Nothing: all.
  virtual std::optional<TensorPart> kept_part(const std::string& name) const { return (void)name, std::nullopt; }
  /// Called after a checkpoint's tensors were copied into the visited ones.
  virtual void state_restored() {}
  virtual std::size_t state_bytes() const = 0;
  /// Diagnostic scalars for the log (ARROW: alpha, descent, interference, step norm ...). Reads the device: call
  /// rarely.
  virtual std::map<std::string, double> scalars() { return {}; }
  /// One line a person may read: what it updates, with which settings.
  virtual std::string describe() const = 0;
};

/// Creates a method by name. A negative `lr` or `weight_decay` takes the method's own default. Throws Error{usage} that
/// lists the known names or options.
std::unique_ptr<Optimizer> make_optimizer(const MethodSpec& spec, const Parameters& parameters, double lr,
                                          double weight_decay);
/// What people are told of a method.
struct MethodInfo {
  std::string name, summary, paper;
  double default_lr = 1e-3, default_weight_decay = 0.05;
  std::string options;         // as --list-methods shows them: "momentum=0.9, nesterov"
  bool intervention = false;   // works beside an update rule
  std::string base = "adamw";  // of an intervention: the update rule where none is named, by its default rate and decay
};
/// Every registered method, in the order of the table in --list-methods. Valid until the next register_method.
const std::vector<MethodInfo>& method_list();

}  // namespace eg
