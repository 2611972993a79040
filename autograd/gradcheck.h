// autograd/gradcheck.h - analytic gradients against central differences, in double on the reference device.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace eg {

/// How the comparison ended.
struct GradcheckResult {
  double worst = 0.0;         // largest error as a share of its bound; passed when at most 1
  std::string where;          // which entry, with both values
  std::int64_t compared = 0;  // number of entries
};

/// Checks d(sum_i <r_i, out_i>)/d(input) for fixed random r_i. Step h = 6.1e-6 max(1, |x|), the cube root of 2^-52,
/// which balances the truncation error h^2 against the rounding error u/h; bound 1e-8 + 1e-6 max(|analytic|, |numeric|).
///   fn      maps inputs to outputs through the functions of functions.h; integer outputs are ignored
///   inputs  f64 tensors on `reference` (others are passed on unwatched)
///   wanted  which inputs to check; at most `max_entries` entries of each, evenly spread
GradcheckResult gradcheck(const std::function<std::vector<Tensor>(std::span<const Tensor>)>& fn,
                          std::span<const Tensor> inputs, const std::vector<bool>& wanted,
                          std::int64_t max_entries = 48);

}  // namespace eg
