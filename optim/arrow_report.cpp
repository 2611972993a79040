// optim/arrow_report.cpp - see arrow_report.h.
#include "optim/arrow_report.h"

#include <cmath>

#include "engine/error.h"

namespace eg {

// Every kernel counts, because what one of them leaves in a cache the next may or may not find there.
std::int64_t arrow_bytes_moved(const ArrowSettings& s, const ArrowSize& size) {
  const std::int64_t window = s.solve.window, column = std::int64_t(size_of(size.ring));
  const std::int64_t gradient = std::int64_t(size_of(size.grad));
  const std::int64_t weight = std::int64_t(size_of(size.master));  // moments and momentum are of its type
  const std::int64_t work = size.work ? std::int64_t(size_of(*size.work)) : 0;
  const bool momentum = s.momentum > 0.0;
  std::int64_t bytes = gradient + (window + 1) * column;  // observe: the older columns are read, one is written
  if (s.precondition_momentum && momentum) bytes += weight;
  if (size.needs_base) bytes += gradient + 4 * weight;  // m and v, read and written
  bytes += gradient + 2 * weight + work;                // update
  if (momentum) bytes += 2 * weight;
  if (s.norm_control)
    bytes += size.needs_base ? 2 * weight : gradient;  // the direction is the base's; its length came with the solve
  else
    bytes += (window + 1) * column;
  return bytes;
}

std::string describe_arrow(const ArrowSettings& s, const ArrowSize& size, double lr) {
  std::string blocks;
  for (const int b : s.blocks) blocks += cat(blocks.empty() ? "" : ",", b);
  static const char* const kDamping[] = {"absolute", "relative", "dimensionless"};
  static const char* const kGraft[] = {"not grafted", "grafted to SGD's norm", "grafted to AdamW's norm"};
  static const char* const kBoundary[] = {"cleared", "kept", "cleared without a new warm-up"};
  const ArrowOptions& o = s.solve;
  const std::string strength = o.damping == ArrowDamping::dimensionless ? cat("kappa=", o.kappa)
                               : o.damping == ArrowDamping::relative    ? cat("rho=", o.rho)
                                                                        : cat("alpha=", o.alpha, " beta=", o.beta);
  const std::string start = o.warmup == ArrowWarmup::base        ? cat("first ", o.warmup_steps, " steps the base's")
                            : o.warmup == ArrowWarmup::beta_ramp ? cat("beta rising for ", o.warmup_steps, " steps")
                                                                 : "no warm-up";
  const std::int64_t ring = size.parameters * (o.window + 1) * std::int64_t(size_of(size.ring));
  const auto room = [](std::int64_t bytes) {
    if (bytes < (1 << 20) / 10) return cat(std::round(double(bytes) / 1024), " KiB");
    return cat(std::round(double(bytes) / (1 << 20) * 10.0) / 10.0, " MiB");
  };
  return cat(
      s.norm_control ? "Base steps with the norm of ARROW's, " : "ARROW ", "on ", s.tensors,
      s.mlp ? " and the MLP" : "", " of blocks ", blocks, " (", size.tensors, " tensors, ", size.parameters,
      " parameters, ", size.groups, " window", size.groups == 1 ? "" : "s", " of together ", room(ring),
      "; on one rank a step with full windows reads and writes ", room(size.parameters * arrow_bytes_moved(s, size)),
      " of gradient, windows, moments and weights), W=", o.window, ", ", kDamping[int(o.damping)], " damping ",
      strength, ", ", kGraft[int(s.graft)], ", ", start, ", window ", kBoundary[int(s.boundary)], " at a new task, ",
      s.in_backward ? "updated inside the backward pass, " : "", "lr ", s.lr < 0.0 ? lr : s.lr, "; ",
      s.adamw_base ? "AdamW" : "SGD", " lr ", lr, " elsewhere, weight decay ", s.weight_decay);
}

std::map<std::string, double> arrow_scalars(std::span<const ArrowState> groups, std::int64_t window) {
  double gradient = 0.0, update = 0.0, descent = 0.0, trace = 0.0, alpha = 0.0, beta = 0.0, filled = 0.0, warm = 0.0;
  double interference = 0.0;
  for (const ArrowState& s : groups) {
    gradient += s.norm_sq_gradient, update += s.norm_sq_update, descent += s.descent;
    trace += s.trace, alpha += s.alpha, beta += s.beta, filled += double(s.filled), warm += double(s.use_base);
    if (!s.committed) continue;
    const std::int64_t slots = window + 1, newest = (s.next + slots - 1) % slots;
    for (std::int64_t j = 0; j < slots; ++j) interference += j == newest ? 0.0 : s.overlap[j];
  }
  const double n = double(groups.size());
  return {{"arrow.gradient_norm", std::sqrt(gradient)},
          {"arrow.update_norm", std::sqrt(update)},
          {"arrow.shrink", gradient > 0.0 ? std::sqrt(update / gradient) : 0.0},
          {"arrow.descent", descent},
          {"arrow.interference", interference},
          {"arrow.trace", trace / n},
          {"arrow.alpha", alpha / n},
          {"arrow.beta", beta / n},
          {"arrow.filled", filled / n},
          {"arrow.base_share", warm / n}};
}

}  // namespace eg
