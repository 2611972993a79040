// engine/reference/gelu.cpp - GELU over a whole tensor, its gradient, and counters of units that still learn.
//
//   forward    y = g(x)                       backward   dx (+)= dy g'(x)
//   counters   per unit f, over the rows r of z[R,F]: how often z > 0, |g(z)| > tau, |g'(z)| > tau; the sums of
//              |g(z)| and g(z), the largest g(z). A unit whose counts stay at zero is dead (methods.md D.2).
// The functions g and g' of both forms stand in gelu.h. x, y, dx, dy have one shape.
#include "engine/reference/gelu.h"

#include <algorithm>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void gelu_fwd(const GeluFwd& a, Stream) {
  for (std::int64_t i = 0; i < a.x.size(); ++i) put(a.y, i, gelu(a.kind, get(a.x, i)));
}

void gelu_bwd(const GeluBwd& a, Stream) {
  for (std::int64_t i = 0; i < a.x.size(); ++i)
    put(a.dx, i, get(a.dy, i) * gelu_gradient(a.kind, get(a.x, i)), a.accumulate);
}

void unit_statistics(const UnitStatistics& a, Stream) {
  const std::int64_t units = a.z.cols();
  for (std::int64_t i = 0; i < a.z.size(); ++i) {
    const std::int64_t unit = i % units;
    const double z = get(a.z, i), y = gelu(a.kind, z);
    const auto add = [&](const TensorView& counter, double value) {
      if (counter) put(counter, unit, value, true);
    };
    add(a.positive, z > 0.0);
    add(a.alive_magnitude, std::abs(y) > a.tau);
    add(a.alive_gradient, std::abs(gelu_gradient(a.kind, z)) > a.tau);
    add(a.sum_abs, std::abs(y));
    add(a.sum, y);
    if (a.max_value) put(a.max_value, unit, std::max(get(a.max_value, unit), y));
  }
  if (a.rows) put(a.rows, 0, double(a.z.rows()), true);
}

}  // namespace eg::reference
