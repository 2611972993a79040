// autograd/op.h - what an operation is. A card is complete, or it does not compile; being in ops/all.h gets it tested.
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <string_view>

#include "engine/tensor.h"

namespace eg {

/// Where backward writes the gradient of one input. The tape chooses it: parameters' gradients land directly in the
/// flat gradient arena, and matrix products accumulate in place. view.dtype may differ from the input's (f32 gradients
/// of bf16 weights). Not wanted: nothing may be written.
struct Destination {
  TensorView view;
  bool accumulate = false;
  bool wanted = false;
};

/// Says that the gradient of an input needs no arithmetic, because it equals the gradient of an output or of an earlier
/// input. The tape then shares one buffer between them instead of copying it.
struct SameAs {
  int output = -1;  // gradient of this input = gradient that reached this output
  int input = -1;   // gradient of this input = gradient of this earlier input; backward writes the earlier one only
};

/// One operation, declared in one place: types, checks, forward, backward, and what backward needs.
///   In, Out   std::array<Tensor, arity>, std::array<Tensor, results>; an absent optional input is an empty Tensor
///   Attrs     plain hyper-parameters
///   Saved     what backward reads, nothing else
///   check     shapes, dtypes, devices; throws Error before anything happens
///   forward   saved == nullptr: nobody will ask for a gradient
///   backward  dy[i] is empty when no gradient reached output i (read: zero)
template <class O>
concept Op = requires(const typename O::In& in, const typename O::Attrs& attrs, typename O::Saved* saved,
                      const typename O::Saved& kept, const typename O::Out& dy,
                      const std::array<Destination, O::arity>& to) {
  { O::name } -> std::convertible_to<std::string_view>;
  requires std::same_as<typename O::In, std::array<Tensor, O::arity>>;
  requires std::same_as<typename O::Out, std::array<Tensor, O::results>>;
  O::check(in, attrs);
  { O::forward(in, attrs, saved) } -> std::same_as<typename O::Out>;
  O::backward(dy, kept, attrs, to);
};

}  // namespace eg
