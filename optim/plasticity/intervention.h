// optim/plasticity/intervention.h - what a plasticity method is that works beside an update rule (methods.md B): it adds
// a penalty to the gradient, changes weights after the update, or acts between tasks. Adding one: one file, one line in
// optim/registry.cpp.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "optim/optimizer.h"
#include "optim/options_reader.h"

namespace eg {

/// Where in a step an intervention writes weights (methods.md 0.4). Several go in this order; a projection is last,
/// because any later write would break what it promises.
enum class Stage : int { scaling, noise, replacement, clipping, projection };

/// A method beside an update rule. The loop calls its functions at the places of a step that they name.
class Intervention {
 public:
  virtual ~Intervention() = default;
  virtual std::string name() const = 0;
  virtual Stage stage() const = 0;
  /// Called once, with the update rule it works beside.
  virtual void attach(Optimizer& base) { (void)base; }
  /// Adds the gradient of a penalty on the parameters of `group` (a block, or depth for the rest), inside backward,
  /// before anybody reads it. Only enqueues.
  virtual void penalty(int group, StepContext& ctx) { (void)group, (void)ctx; }
  /// As in Optimizer.
  virtual std::int64_t updates_from_batch(StepContext& ctx) { return (void)ctx, 1; }
  virtual std::int64_t probe_images() const { return 0; }
  /// As Optimizer::ascends and ascend; one of the interventions at most.
  virtual bool ascends() const { return false; }
  virtual Tensor ascend(StepContext& ctx) { return (void)ctx, Tensor{}; }
  /// Writes weights that the base does not know of. TRAC, which keeps a way for every weight, goes only with what does
  /// not.
  virtual bool rewrites_weights() const { return true; }
  /// Before the base's update; the norm is known. Only enqueues, and changes no weight.
  virtual void before_update(StepContext& ctx) { (void)ctx; }
  /// After the base's update. Only enqueues; changes nothing when the step's gradient was not finite.
  virtual void after_update(StepContext& ctx) { (void)ctx; }
  /// On the host, when the device has finished the step. True: weights were changed, so projections run once more.
  virtual bool after_step(StepContext& ctx) { return (void)ctx, false; }
  /// Between tasks: ctx.task is the one that begins, never the first. Says so in ctx.weights_changed.
  virtual void task_boundary(StepContext& ctx) { (void)ctx; }
  /// The base's moments do not survive a task boundary.
  virtual bool clears_optimizer() const { return false; }
  virtual void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) { (void)visit; }
  /// Called after a checkpoint's tensors were copied into the visited ones.
  virtual void state_restored() {}
  virtual std::size_t state_bytes() const { return 0; }
  virtual std::map<std::string, double> scalars() { return {}; }
  virtual std::string describe() const = 0;
};

/// A base optimizer and what works beside it, as one optimizer.
std::unique_ptr<Optimizer> combine(std::unique_ptr<Optimizer> base, std::vector<std::unique_ptr<Intervention>> parts);

/// Makes one from its options, for a model. Throws Error{usage}.
using MakeIntervention = std::unique_ptr<Intervention> (*)(const MethodSpec&, const Parameters&);
// One per file of this folder.
std::unique_ptr<Intervention> make_l2(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_l2_init(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_shrink_perturb(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_weight_clipping(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_nap(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_reset(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_fresh(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_cbp(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_redo(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_snr(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_swr(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_sam(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_crelu(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_adaptive_replay(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_plastic(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_trac(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_fire(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_spectral(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_parseval(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_l2p(const MethodSpec& spec, const Parameters& p);
std::unique_ptr<Intervention> make_dash(const MethodSpec& spec, const Parameters& p);

/// What a method changes in the network; makes no parameters, so that it can be asked before there are any.
using ChangeModel = void (*)(const MethodSpec&, ModelChange&);
void crelu_model(const MethodSpec& spec, ModelChange& change);
void plastic_model(const MethodSpec& spec, ModelChange& change);
void l2p_model(const MethodSpec& spec, ModelChange& change);

}  // namespace eg
