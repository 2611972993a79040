// autograd/apply.h - runs a card: checks, computes, and records when an input is on a tape that is recording.
#pragma once
#include <memory>
#include <span>
#include <utility>

#include "autograd/node.h"
#include "autograd/op.h"
#include "autograd/tape.h"

namespace eg {

namespace detail {

template <class O>
constexpr std::array<bool, O::arity> differentiable_inputs() {
  if constexpr (requires { O::differentiable; }) {
    return O::differentiable;
  } else {
    std::array<bool, O::arity> all{};
    all.fill(true);
    return all;
  }
}

template <Op O>
struct OpNode final : Node {
  explicit OpNode(const typename O::Attrs& a) : Node(O::name), attrs(a) {
    if constexpr (requires { O::same_as; }) same_as = O::same_as;
  }
  void backward(std::span<const Tensor> dy, std::span<Destination> to) override {
    typename O::Out dys;
    std::array<Destination, O::arity> tos;
    for (std::size_t i = 0; i < O::results; ++i) dys[i] = dy[i];
    for (std::size_t i = 0; i < O::arity; ++i) tos[i] = to[i];
    O::backward(dys, saved, attrs, tos);
  }
  typename O::Attrs attrs;
  typename O::Saved saved;
};

/// The innermost tape that the differentiable inputs are on; nullptr when none is. Throws Error{usage} for two tapes.
Tape* common_tape(std::string_view op, std::span<const Tensor> in, std::span<const bool> differentiable);
/// Appends the node: links it to its inputs, and gives the outputs tape and id.
void record(Tape& tape, std::unique_ptr<Node> node, std::span<const Tensor> in, std::span<const bool> differentiable,
            std::span<Tensor> out);
/// Remembers `op` on the tape when one of its outputs holds a NaN or an infinity and no earlier op did.
void inspect(Tape& tape, std::string_view op, std::span<const Tensor> out);
bool inspects(const Tape& tape);

}  // namespace detail

/// out = O(in). Records only when a differentiable input is on a recording tape; saves nothing otherwise.
template <Op O>
typename O::Out apply(const typename O::In& in, const typename O::Attrs& attrs = {}) {
  static constexpr auto differentiable = detail::differentiable_inputs<O>();
  O::check(in, attrs);
  Tape* const tape = detail::common_tape(O::name, in, differentiable);
  std::unique_ptr<detail::OpNode<O>> node;
  if (tape && tape->recording()) node = std::make_unique<detail::OpNode<O>>(attrs);
  typename O::Out out = O::forward(in, attrs, node ? &node->saved : nullptr);
  if (tape && detail::inspects(*tape)) detail::inspect(*tape, O::name, out);
  if (node) detail::record(*tape, std::move(node), in, differentiable, out);
  return out;
}

}  // namespace eg
