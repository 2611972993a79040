// optim/hidden_matrices.h - the matrices of the transformer blocks, q, k and v each its own (methods.md 0.3, class M).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "optim/optimizer.h"

namespace eg {

/// A matrix [rows, cols] that a block multiplies with, as a range of the arena.
struct HiddenMatrix {
  const Param* param = nullptr;
  char part = 0;           // 'q', 'k' or 'v' third of a fused projection, else 0
  std::int64_t begin = 0;  // first element in the arena
  std::int64_t rows = 0, cols = 0;
  std::int64_t size() const { return rows * cols; }
};

/// Trainable weights of q, k, v, output and MLP, in the model's order.
std::vector<HiddenMatrix> hidden_matrices(const Parameters& parameters);
/// Throws Error{usage} when the model has such weights, but `method`, which works on them, may change none of them.
void require_trainable_matrices(const Parameters& parameters, const std::string& method);
/// The part of an array that is laid out as the arena; empty where the array is.
TensorView part_of(const Tensor& array, const HiddenMatrix& m);

}  // namespace eg
