// autograd/node.h - one step of a tape: what ran, on which values, and how to run it backwards.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "autograd/op.h"

namespace eg {

/// One input of a node. `value` is its index on the node's tape, -1 for a constant. The shape is kept per use, because
/// reshape() lets one value be read under several shapes.
struct Use {
  std::int64_t value = -1;
  Shape shape;
};

/// What the tape keeps of one operation.
class Node {
 public:
  explicit Node(std::string_view op) : name(op) {}
  virtual ~Node() = default;
  /// Writes the wanted destinations. May clear `wanted` of a destination it did not touch: no gradient, read as zero.
  virtual void backward(std::span<const Tensor> dy, std::span<Destination> to) = 0;

  std::string_view name;
  std::vector<Use> inputs;
  std::vector<std::int64_t> outputs;  // value indices, -1 for outputs without a gradient (integers)
  std::span<const SameAs> same_as;    // empty, or one per input
};

}  // namespace eg
