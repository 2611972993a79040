// engine/reference/crelu.cpp - concatenated ReLU (Shang et al. 2016, arXiv:1603.05201).
#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void crelu_fwd(const CreluFwd& a, Stream) {
  const std::int64_t width = a.x.cols();
  for (std::int64_t r = 0; r < a.x.rows(); ++r)
    for (std::int64_t f = 0; f < width; ++f) {
      const double x = get(a.x, r * width + f);
      put(a.y, 2 * r * width + f, x < 0.0 ? 0.0 : x);
      put(a.y, 2 * r * width + width + f, x > 0.0 ? 0.0 : -x);
    }
}

void crelu_bwd(const CreluBwd& a, Stream) {
  const std::int64_t width = a.x.cols();
  for (std::int64_t r = 0; r < a.x.rows(); ++r)
    for (std::int64_t f = 0; f < width; ++f) {
      const std::int64_t i = r * width + f, up = 2 * r * width + f;
      const double x = get(a.x, i), old = a.accumulate ? get(a.dx, i) : 0.0;
      put(a.dx, i, old + (x > 0.0 ? get(a.dy, up) : x < 0.0 ? -get(a.dy, up + width) : 0.0));
    }
}

}  // namespace eg::reference
