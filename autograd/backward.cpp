// autograd/backward.cpp - reverse mode as one loop from the end of the tape.
//
// Gradients of leaves go straight to the views given to watch(). Gradients of intermediate values live in pool memory
// from their first contribution until the node that made the value has consumed them. One buffer may serve several
// values (both sides of a residual sum have the same gradient); before anybody adds to a shared buffer in place, it is
// cloned. What is computed never depends on whether a buffer was shared, so a recomputed run gives the same bits as a
// plain one.
#include <algorithm>
#include <map>

#include "autograd/tape_state.h"
#include "engine/kernels.h"
#include "engine/memory.h"

namespace eg {
namespace detail {

namespace {

TensorView reshaped(TensorView v, const Shape& shape) {
  v.shape = shape;
  return v;
}

Tensor pooled_copy(const Tensor& t) {
  Tensor copy = pool(t.device()).empty(t.shape(), t.dtype());
  if (t.size() != 0) runtime(t.device()).copy_within(copy.data(), t.data(), t.bytes(), {});
  return copy;
}

/// Adds the gradient at `from` to a leaf, which overwrites at its first contribution.
void contribute_to_leaf(const Device& device, Leaf& leaf, const TensorView& from) {
  const TensorView to = reshaped(leaf.gradient, from.shape);
  if (from.size() != 0) {
    if (leaf.accumulate || leaf.written)
      EVERGRAD_CALL(device, axpy, Axpy{from, to, 1.0});
    else
      EVERGRAD_CALL(device, cast, Cast{from, to});
  }
  leaf.written = true;
}

/// What run_node knows about one input while the node runs.
struct Slot {
  std::int64_t value = -1;  // where the result belongs; -1: nowhere
  Tensor scratch;           // set when the result is computed aside and contributed afterwards
  std::int64_t also = -1;   // a second value with the same gradient (SameAs::input)
};

bool will_accumulate(const TapeState& s, std::int64_t v) {
  const Value& value = s.values[std::size_t(v)];
  if (value.leaf < 0) return bool(value.gradient);
  const Leaf& leaf = s.leaves[std::size_t(value.leaf)];
  return leaf.accumulate || leaf.written;
}

DType gradient_dtype(const TapeState& s, std::int64_t v) {
  const Value& value = s.values[std::size_t(v)];
  return value.leaf < 0 ? value.dtype : s.leaves[std::size_t(value.leaf)].gradient.dtype;
}

/// A destination beside the value, for results that must not be written in place.
Destination scratch_for(const TapeState& s, Slot& slot, const Shape& shape) {
  const Value& value = s.values[std::size_t(slot.value)];
  slot.scratch = pool(value.device).empty(shape, gradient_dtype(s, slot.value));
  return {slot.scratch.view(), false, true};
}

/// The value's own buffer: a leaf's view, or pool memory that nobody else reads.
Destination buffer_of(TapeState& s, std::int64_t v, const Shape& shape) {
  Value& value = s.values[std::size_t(v)];
  const bool accumulate = will_accumulate(s, v);
  if (value.leaf >= 0) return {reshaped(s.leaves[std::size_t(value.leaf)].gradient, shape), accumulate, true};
  if (!value.gradient)
    value.gradient = pool(value.device).empty(value.shape, value.dtype);
  else if (value.gradient.storage().use_count() > 1)
    value.gradient = pooled_copy(value.gradient);
  return {reshaped(value.gradient.view(), shape), accumulate, true};
}

/// Two inputs with the same gradient: computes it once, in the buffer of one that overwrites, or aside.
void join_twin(const TapeState& s, Slot& first, std::int64_t second) {
  if (second < 0) return;
  if (first.value < 0) {
    first.value = second;
    return;
  }
  first.also = second;
  const auto can_hold = [&](std::int64_t v) {
    return !will_accumulate(s, v) && gradient_dtype(s, v) == s.values[std::size_t(v)].dtype;
  };
  if (!can_hold(first.value) && can_hold(second)) std::swap(first.value, first.also);
}

/// Decides for every input where its gradient is written.
void choose_destinations(TapeState& s, const Node& node, std::vector<Slot>& slots, std::vector<Destination>& to) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const SameAs same = node.same_as.empty() ? SameAs{} : node.same_as[i];
    if (same.output >= 0) continue;
    if (same.input >= 0)
      join_twin(s, slots[std::size_t(same.input)], node.inputs[i].value);
    else
      slots[i].value = node.inputs[i].value;
  }
  std::vector<std::int64_t> taken;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    Slot& slot = slots[i];
    if (slot.value < 0) continue;
    // The same tensor twice among the inputs: kernels write all their outputs at once, so the second one goes aside.
    const bool again = std::find(taken.begin(), taken.end(), slot.value) != taken.end();
    const bool aside = again || (slot.also >= 0 && will_accumulate(s, slot.value));
    to[i] = aside ? scratch_for(s, slot, node.inputs[i].shape) : buffer_of(s, slot.value, node.inputs[i].shape);
    taken.push_back(slot.value);
  }
}

/// Books what the node wrote, and passes on what needed no arithmetic.
void deliver(TapeState& s, const Node& node, std::vector<Slot>& slots, const std::vector<Destination>& to,
             const std::vector<Tensor>& dy) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const SameAs same = node.same_as.empty() ? SameAs{} : node.same_as[i];
    if (same.output >= 0 && node.inputs[i].value >= 0 && dy[std::size_t(same.output)])
      contribute(s, node.inputs[i].value, dy[std::size_t(same.output)]);
    Slot& slot = slots[i];
    if (slot.value < 0) continue;
    Value& value = s.values[std::size_t(slot.value)];
    if (!to[i].wanted) {  // the node left it alone: an unused new buffer is no gradient
      if (!slot.scratch && value.leaf < 0 && !to[i].accumulate) value.gradient = {};
      continue;
    }
    if (slot.scratch) {
      contribute(s, slot.value, slot.scratch);
      if (slot.also >= 0) contribute(s, slot.also, slot.scratch);
      continue;
    }
    if (value.leaf >= 0) s.leaves[std::size_t(value.leaf)].written = true;
    if (slot.also < 0) continue;
    if (value.leaf < 0) {
      contribute(s, slot.also, value.gradient);
    } else {
      Tensor copy = pool(value.device).empty(node.inputs[i].shape, to[i].view.dtype);
      if (copy.size() != 0) EVERGRAD_CALL(value.device, cast, Cast{to[i].view, copy.view()});
      contribute(s, slot.also, copy);
    }
  }
}

void run_node(TapeState& s, Node& node) {
  std::vector<Tensor> dy(node.outputs.size());
  bool reached = false, empty = true;
  for (std::size_t i = 0; i < dy.size(); ++i) {
    if (node.outputs[i] < 0) continue;
    Value& value = s.values[std::size_t(node.outputs[i])];
    dy[i] = std::move(value.gradient);
    value.gradient = {};
    if (!dy[i]) continue;
    dy[i] = dy[i].reshape(value.shape);
    reached = true;
    empty = empty && dy[i].size() == 0;
  }
  if (!reached) return;

  std::vector<Slot> slots(node.inputs.size());
  std::vector<Destination> to(node.inputs.size());
  choose_destinations(s, node, slots, to);
  const bool any = std::any_of(to.begin(), to.end(), [](const Destination& d) { return d.wanted; });
  if (any && !empty) node.backward(dy, to);
  if (empty)  // an empty batch: nothing flows, so nothing is written
    for (Destination& d : to) d.wanted = false;
  deliver(s, node, slots, to, dy);
}

/// Fires on_gradient_final: group g is final once the loop has passed the earliest node that uses a leaf of g.
class GroupEvents {
 public:
  GroupEvents(Tape& tape, TapeState& s, bool fill) : tape_(tape), state_(s), fill_(fill) {
    std::vector<std::int64_t> first_use(s.leaves.size(), std::int64_t(s.nodes.size()));
    for (std::int64_t n = std::int64_t(s.nodes.size()) - 1; n >= 0; --n)
      for (const Use& use : s.nodes[std::size_t(n)]->inputs) {
        const std::int64_t leaf = use.value < 0 ? -1 : s.values[std::size_t(use.value)].leaf;
        if (leaf >= 0) first_use[std::size_t(leaf)] = n;
      }
    std::map<int, std::int64_t> first;
    for (std::size_t i = 0; i < s.leaves.size(); ++i) {
      const int group = s.leaves[i].group;
      if (group < 0) continue;
      const auto [at, added] = first.emplace(group, first_use[i]);
      if (!added) at->second = std::min(at->second, first_use[i]);
    }
    for (const auto& [group, node] : first) by_node_[node].push_back(group);
  }
  /// Node n (or, for n == node count, nothing yet) has run.
  void passed(std::int64_t n) {
    const auto at = by_node_.find(n);
    if (at == by_node_.end()) return;
    for (const int group : at->second) {
      finish_leaves(group);
      if (TapeAccess::callback(tape_)) TapeAccess::callback(tape_)(group);
    }
  }
  /// Zero-fills leaves of the group that no gradient reached.
  void finish_leaves(int group) {
    if (!fill_) return;
    for (Leaf& leaf : state_.leaves) {
      if (leaf.group != group || leaf.written || leaf.accumulate || leaf.gradient.size() == 0) continue;
      const Device device = state_.values[std::size_t(leaf.value)].device;
      runtime(device).set_zero(leaf.gradient.data, std::size_t(leaf.gradient.size()) * size_of(leaf.gradient.dtype),
                               {});
    }
  }

 private:
  Tape& tape_;
  TapeState& state_;
  bool fill_;
  std::map<std::int64_t, std::vector<int>> by_node_;  // ascending groups under each node
};

}  // namespace

void contribute(TapeState& s, std::int64_t v, const Tensor& t) {
  Value& value = s.values[std::size_t(v)];
  if (value.leaf >= 0) {
    contribute_to_leaf(value.device, s.leaves[std::size_t(value.leaf)], t.view());
    return;
  }
  const Tensor same_shape = t.reshape(value.shape).detached();
  if (!value.gradient) {
    if (t.dtype() == value.dtype) {
      value.gradient = same_shape;
    } else {
      value.gradient = pool(value.device).empty(value.shape, value.dtype);
      if (t.size() != 0) EVERGRAD_CALL(value.device, cast, Cast{same_shape.view(), value.gradient.view()});
    }
    return;
  }
  if (t.size() == 0) return;
  if (value.gradient.storage().use_count() > 1) value.gradient = pooled_copy(value.gradient);
  EVERGRAD_CALL(value.device, axpy, Axpy{same_shape.view(), value.gradient.view(), 1.0});
}

void run_backward(Tape& tape, bool fill_leaves) {
  TapeState& s = TapeAccess::state(tape);
  GroupEvents events(tape, s, fill_leaves);
  const auto count = std::int64_t(s.nodes.size());
  events.passed(count);
  for (std::int64_t n = count - 1; n >= 0; --n) {
    run_node(s, *s.nodes[std::size_t(n)]);
    s.nodes[std::size_t(n)].reset();
    events.passed(n);
  }
  events.finish_leaves(-1);
}

}  // namespace detail

namespace {

/// Marks the tape as running, and leaves it empty whatever happens.
class Running {
 public:
  explicit Running(Tape& tape) : tape_(tape) { TapeAccess::state(tape).running = true; }
  ~Running() { TapeAccess::reset(tape_); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Tape& tape_;
};

void check_recorded(Tape& tape, const Tensor& t, const char* what) {
  check(bool(t), Kind::usage, [&] { return cat("backward: ", what, " is an empty tensor"); });
  check(detail::live_tape(t) == &tape, Kind::usage, [&] {
    return cat("backward: ", what, " ", t, " was not recorded on this tape; watch() the parameters before the forward ",
               "pass, and call backward once per forward pass (it empties the tape)");
  });
  check(!TapeAccess::state(tape).running, Kind::usage,
        [] { return std::string("backward: already running on this tape"); });
}

}  // namespace

void backward(Tape& tape, const Tensor& loss, double seed) {
  check(bool(loss), Kind::usage, [] { return std::string("backward: loss is an empty tensor"); });
  check(loss.size() == 1, Kind::usage, [&] {
    return cat("backward: loss must have one element, got ", loss, "; reduce it with mean() or cross_entropy()");
  });
  check_recorded(tape, loss, "loss");
  Tensor gradient = pool(loss.device()).empty(loss.shape(), loss.dtype());
  EVERGRAD_CALL(loss.device(), fill, Fill{gradient.view(), seed});
  const Running running(tape);
  detail::contribute(TapeAccess::state(tape), detail::value_on(tape, loss), gradient);
  gradient = {};
  detail::run_backward(tape, true);
}

void backward(Tape& tape, std::span<const Tensor> outputs, std::span<const Tensor> gradients) {
  check(outputs.size() == gradients.size() && !outputs.empty(), Kind::usage, [&] {
    return cat("backward: ", outputs.size(), " outputs but ", gradients.size(), " gradients; give one for each");
  });
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    check_recorded(tape, outputs[i], "output");
    check(gradients[i] && gradients[i].shape() == outputs[i].shape() && gradients[i].dtype() == outputs[i].dtype() &&
              gradients[i].device() == outputs[i].device(),
          Kind::shape, [&] { return cat("backward: gradient ", i, " does not fit output ", outputs[i]); });
  }
  const Running running(tape);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    detail::contribute(TapeAccess::state(tape), detail::value_on(tape, outputs[i]), gradients[i].detached());
  detail::run_backward(tape, true);
}

}  // namespace eg
