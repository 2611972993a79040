// apps/bench/step_rig.cpp - see step_rig.h.
#include "apps/bench/step_rig.h"

#include "apps/distributed/launch.h"
#include "engine/error.h"

namespace eg {

StepRig::StepRig(const BenchOptions& o, const ResolvedMachine& machine, const std::string& method,
                 std::shared_ptr<Collectives> ranks, StepListener* listener)
    : images_(std::int64_t(o.batch) * (ranks ? ranks->size() : 1)),
      vit_(vit_of(o.model, o.classes, machine.activation)) {
  DataOptions data_options;
  data_options.augment = "none";
  const std::shared_ptr<const Dataset> data = open_data(data_options);
  const Task task = whole_dataset(*data, o.classes, images_ * 4);
  TrainerConfig c;
  c.vit = vit_;
  c.device = machine.device, c.zero = machine.zero;
  c.record_steps = machine.record_steps;
  c.method = parse_method(method);
  const ChannelStats s = channel_stats(*data, task.train, {o.model.channels, o.model.image_size});
  c.mean = s.mean, c.stddev = s.stddev;
  c.ranks = ranks, c.listener = listener;
  trainer_ = std::make_unique<Trainer>(c);
  LoaderConfig lc = base_loader(data_options, o.model, images_, o.classes, true);
  if (ranks) share_batches(lc, *ranks);
  loader_ = std::make_unique<Loader>(data, task.train, task.transform, lc);
}

const Batch& StepRig::next() {
  const Batch* b = loader_->next();
  if (!b) b = loader_->next();
  check(b->global_count == images_, Kind::usage, [&] {
    return cat("bench: a step of all ranks needs ", images_, " images, and the data set gave ", b->global_count,
               "; use a smaller --batch, or more --classes");
  });
  return *b;
}

}  // namespace eg
