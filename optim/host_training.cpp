// optim/host_training.cpp - see host_training.h. The order of calls is the one that Optimizer's functions stand in.
#include "optim/host_training.h"

#include <utility>

namespace eg {

HostTraining::HostTraining(std::vector<Param*> parameters, int depth, const HostTrainingOptions& o)
    : params_(std::move(parameters)), depth_(depth), record_{.seed = o.seed, .max_norm = o.max_norm} {
  const MethodSpec spec = parse_method(o.method);
  const ModelChange change = model_change(spec);
  arena_.build(params_, kCpu, DType::f32);
  arena_.initialise(params_, o.seed);
  optimizer_ = make_optimizer(spec, {params_, &arena_, depth_}, o.lr, o.weight_decay);
  check(!change.crelu && !change.prompts.pool && !optimizer_->ascends() && optimizer_->probe_images() == 0, Kind::usage,
        [&] {
          return cat("HostTraining: ", o.method, " needs another ",
                     change.crelu || change.prompts.pool ? "model" : "loop",
                     " than this one; `evergrad continual --methods ", o.method, "` has it");
        });
}

StepContext HostTraining::context() {
  return {.device_step = &record_, .host_step = &record_, .lr_factor = lr_factor_, .images = images_};
}

void HostTraining::begin(std::int64_t images, std::uint64_t first_sample, double lr_factor) {
  images_ = images;
  record_.first_sample = std::int64_t(first_sample);
  lr_factor_ = lr_factor;
  StepContext ctx = context();
  optimizer_->prepare(ctx);
}

void HostTraining::finish() {
  StepContext ctx = context();
  // Backward completes the groups from the last block to the first, then what surrounds the blocks.
  for (int block = depth_; block-- > 0;) optimizer_->on_gradient_final(block, ctx);
  optimizer_->on_gradient_final(depth_, ctx);
  std::vector<Segment> gradients;  // a frozen parameter has none
  for (const Param* p : params_)
    if (!p->frozen) gradients.push_back({p->offset, p->offset + p->size()});
  EVERGRAD_CALL(kCpu, global_norm, GlobalNorm{.grad = arena_.grad.view(), .segments = gradients, .step = &record_});
  optimizer_->step(ctx);
  optimizer_->after_step(ctx);
  ++record_.step;
}

}  // namespace eg
