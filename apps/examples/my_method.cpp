// apps/examples/my_method.cpp - a plasticity method of one's own, which the installed binary runs:
//
//   evergrad continual --plugin ./libmy_method.so --methods adamw,my-method:rate=0.01 --stream procedural --tasks 5
//
// The method pulls the weights of the last blocks towards where they were when the task began: whatever a task changes
// there has to be worth its way. (It is made up; published relatives are L2 Init and shrink and perturb.)
#include <evergrad/optim/plasticity/selection.h>
#include <evergrad/optim/plugin.h>

using namespace eg;

namespace {

/// w = (1 - rate) w + rate w0 after every update, w0 the weights at the beginning of the task.
class PullBack final : public Intervention {
 public:
  PullBack(const MethodSpec& spec, const Parameters& p) : arena_(*p.arena) {
    // Options are read one by one, each with its default and range; finish() rejects any other with the list of these.
    OptionReader options(spec);
    rate_ = options.number("rate", 1e-3, 0.0, 1.0);
    const std::int64_t blocks = options.integer("last", 2, 1, 1000);
    options.finish();
    // All weights lie in one arena. A segment is a range of it with the numbers that the kernel uses there.
    segments_ = weight_segments(p, [&](const Param& param, WeightSegment& s) {
      s.keep = float(1.0 - rate_), s.pull = float(rate_);
      return param.role == Role::weight && param.block >= p.depth - blocks;
    });
    anchor_ = arena_.master.clone();
  }
  std::string name() const override { return "my-method"; }
  std::string describe() const override { return cat("pulls weights back by ", rate_, " a step"); }
  /// Where it stands among others, as in my-method+weight-clipping: noise, then clipping, then projections.
  Stage stage() const override { return Stage::scaling; }

  /// After every update. Only enqueues: the same kernel runs on every device, and in a recorded step. It leaves the
  /// weights alone when the step's gradient was not finite.
  void after_update(StepContext& ctx) override {
    EVERGRAD_CALL(arena_.device, weight_perturb,
                  WeightPerturb{.weight = arena_.master.view(),
                                .anchor = anchor_.view(),
                                .work = work_of(arena_),
                                .segments = segments_,
                                .step = ctx.device_step},
                  ctx.stream);
  }
  /// Between tasks: the anchor moves. The head may be new; it is not in the segments.
  void task_boundary(StepContext&) override { anchor_.copy_from(arena_.master); }
  /// Everything that a killed run needs to go on bit for bit.
  void visit_state(const std::function<void(const std::string&, Tensor&)>& visit) override { visit("anchor", anchor_); }
  std::size_t state_bytes() const override { return anchor_.bytes(); }

 private:
  ParamArena& arena_;
  double rate_ = 0.0;
  std::vector<WeightSegment> segments_;
  Tensor anchor_;
};

}  // namespace

// Runs when the binary loads this file. A program that links evergrad calls register_method itself.
EVERGRAD_PLUGIN {
  register_method<PullBack>({.name = "my-method",
                             .summary = "Pulls the last blocks' weights towards where they were when the task began.",
                             .paper = "apps/examples/my_method.cpp",
                             .options = "rate=1e-3, last=2"});
}
