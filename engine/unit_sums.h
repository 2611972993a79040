// engine/unit_sums.h - what a forward pass adds up about the hidden units of an MLP, for whoever watches them.
#pragma once
#include "engine/tensor.h"

namespace eg {

/// f64 [F], `rows` f64 [1], each optional: every training forward pass adds, over its rows (images x tokens), |h| with
/// h = gelu(z), how often z > 0, h, and the number of rows. Who watches sets them back to zero.
struct UnitSums {
  Tensor absolute, positive, value, rows;
  explicit operator bool() const { return absolute || positive || value || rows; }
};

}  // namespace eg
