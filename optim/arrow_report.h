// optim/arrow_report.h - what ARROW says of itself: one line with every number before a run, and scalars while it lasts.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "engine/dtype.h"
#include "engine/kernels_arrow.h"
#include "optim/arrow_options.h"

namespace eg {

/// What there is to observe and update, all ranks together.
struct ArrowSize {
  std::size_t tensors = 0, groups = 0;
  std::int64_t parameters = 0;
  bool needs_base = false;  // moments of the base optimizer are kept for these too
  DType ring = DType::f32, grad = DType::f32, master = DType::f32;
  std::optional<DType> work;  // of the weights that the network reads, where those are not the masters
};

/// Bytes per element that a step with full windows reads and writes, as cuda/kernels/arrow.cu does it after the warm-up.
std::int64_t arrow_bytes_moved(const ArrowSettings& s, const ArrowSize& size);
/// One line: targets, memory, traffic, damping, grafting, warm-up, rates. lr: the base's.
std::string describe_arrow(const ArrowSettings& s, const ArrowSize& size, double lr);

/// Of the latest step: sums over groups of squared norms and overlaps, and means of what has no sum. "arrow.shrink" is |u| / |g|
/// before grafting; "arrow.interference" is the sum of g_k.u over the window's older gradients, positive where the step still serves
/// them. window: W.
std::map<std::string, double> arrow_scalars(std::span<const ArrowState> groups, std::int64_t window);

}  // namespace eg
