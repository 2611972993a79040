// optim/unit_steps.cpp - see unit_steps.h.
#include "optim/unit_steps.h"

#include "optim/arrow_targets.h"

namespace eg {

std::vector<Segment> without_units(const std::vector<Segment>& segments, const std::vector<Units>& units) {
  std::vector<ArrowRun> runs;
  for (const Units& u : units)
    for (const Param* p : {u.fc1_weight, u.fc1_bias, u.fc2_weight})
      if (p) runs.push_back({p->name, p->offset, p->size()});
  return without(segments, std::move(runs));
}

void adam_update_by_unit(Device device, AdamUpdate a, const std::vector<Units>& units, double weight_decay, int slot,
                         Stream stream) {
  for (const Units& u : units)
    for (const Param* p : {u.fc1_weight, u.fc1_bias, u.fc2_weight}) {
      if (!p) continue;
      const Segment s{p->offset, p->offset + p->size(), slot, 1.0f, p->decays ? float(weight_decay) : 0.0f};
      a.segments = {&s, 1};
      a.columns = p == u.fc1_bias ? 1 : p->shape.cols();
      a.rows = p->size() / a.columns;
      a.row_steps = p == u.fc2_weight ? TensorView{} : u.steps.view();
      a.column_steps = p == u.fc2_weight ? u.steps.view() : TensorView{};
      if (!p->frozen) EVERGRAD_CALL(device, adam_update, a, stream);
    }
}

}  // namespace eg
