// optim/segments.cpp - see segments.h.
#include "optim/segments.h"

#include <algorithm>

namespace eg {

std::vector<Segment> segments_of(const Parameters& p, double weight_decay, int slot) {
  std::vector<const Param*> order(p.list.begin(), p.list.end());
  std::sort(order.begin(), order.end(), [](const Param* a, const Param* b) { return a->offset < b->offset; });
  std::vector<Segment> segments;
  const Param* previous = nullptr;
  for (const Param* param : order) {
    const float decay = param->decays ? float(weight_decay) : 0.0f;
    const bool joins = previous && !previous->frozen && !segments.empty() && segments.back().weight_decay == decay;
    if (!param->frozen) {
      if (joins)
        segments.back().end = param->offset + param->size();
      else
        segments.push_back({param->offset, param->offset + param->size(), slot, 1.0f, decay});
    }
    previous = param;
  }
  return segments;
}

}  // namespace eg
