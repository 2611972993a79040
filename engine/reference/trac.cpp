// engine/reference/trac.cpp - the passes of TRAC over the weights (methods.md A.4).
#include "engine/trac_tune.h"

#include <algorithm>
#include <cmath>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void trac_measure(const TracMeasure& a, Stream) {
  if (!a.step->finite) return;
  double* const state = a.state.as<double>();
  double h = 0.0;
  for (std::int64_t i = 0; i < a.weight.size(); ++i) {
    const double way = a.way ? get(a.way, i) : (get(a.weight, i) - get(a.anchor, i)) / (state[kTracScale] + kTracEps);
    h += a.step->clip_scale * get(a.grad, i) * way;
  }
  if (!std::isfinite(h)) {
    a.step->finite = 0;
    return;
  }
  trac_tune(state, h);
}

void trac_apply(const TracApply& a, Stream) {
  if (!a.step->finite) return;
  const double* const state = a.state.as<double>();
  const double scale = std::max(state[kTracScale], 0.0), divisor = state[kTracBefore] + kTracEps;
  for (std::int64_t i = 0; i < a.weight.size(); ++i) {
    double way = a.way ? get(a.way, i) : (get(a.before, i) - get(a.anchor, i)) / divisor;
    way += get(a.weight, i) - get(a.before, i);
    if (a.way) put(a.way, i, way);
    put(a.weight, i, get(a.anchor, i) + scale * way);
    if (a.work) put(a.work, i, get(a.weight, i));
  }
}

}  // namespace eg::reference
