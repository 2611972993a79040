// optim/plasticity/selection.h - which weights an intervention touches.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "optim/optimizer.h"
#include "optim/options_reader.h"

namespace eg {

/// "all", "last-2", "0+3" or "none" as block numbers. Throws Error{usage} naming the option.
std::vector<int> read_blocks(OptionReader& r, const std::string& key, const std::string& otherwise, int depth,
                             const std::string& method);

/// One segment per trainable parameter that `fill` accepts; it sets what the kernel reads.
std::vector<WeightSegment> weight_segments(const Parameters& p,
                                           const std::function<bool(const Param&, WeightSegment&)>& fill);
/// The same, sorted into one list per group of the backward pass: blocks 0 to depth - 1, then the rest.
std::vector<std::vector<WeightSegment>> weight_segments_by_group(
    const Parameters& p, const std::function<bool(const Param&, WeightSegment&)>& fill);

/// Mean and standard deviation of what a parameter is drawn from at the start.
struct Moments {
  double mean = 0.0, stddev = 0.0;
};
Moments moments_of(const Init& init);

/// Draws a parameter anew; `redraw` is the number of the draw. The bf16 copy is the caller's to refresh.
void redraw(const Param& p, const ParamArena& arena, std::uint64_t seed, std::uint32_t redraw);

/// bf16 copies, where there are any.
inline TensorView work_of(const ParamArena& arena) { return arena.work ? arena.work.view() : TensorView{}; }

}  // namespace eg
