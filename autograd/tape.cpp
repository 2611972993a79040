// autograd/tape.cpp - recording: leaves, nodes, and which tape a tensor belongs to.
#include "autograd/tape.h"

#include <atomic>
#include <cmath>
#include <mutex>
#include <unordered_set>

#include "autograd/apply.h"
#include "autograd/tape_state.h"

namespace eg {

namespace {

// Serials of the states that exist. A tensor may outlive its tape (a parameter does, every step); this is how its stale
// pointer is recognised without being followed.
struct LiveSerials {
  std::mutex mutex;
  std::unordered_set<std::int64_t> set;
  std::int64_t next = 1;
};
LiveSerials& live_serials() {
  static LiveSerials serials;
  return serials;
}

}  // namespace

TapeState::TapeState() {
  LiveSerials& all = live_serials();
  const std::lock_guard lock(all.mutex);
  serial = all.next++;
  all.set.insert(serial);
}

TapeState::~TapeState() {
  LiveSerials& all = live_serials();
  const std::lock_guard lock(all.mutex);
  all.set.erase(serial);
}

std::int64_t TapeState::add_value(const Tensor& t) {
  values.push_back({t.shape(), t.dtype(), t.device(), {}, -1});
  return std::int64_t(values.size()) - 1;
}

void Tape::watch(Tensor& t, const TensorView& gradient, bool accumulate, int group) {
  check(bool(t), Kind::usage, [] { return std::string("watch: t is an empty tensor"); });
  check(is_float(t.dtype()), Kind::dtype, [&] { return cat("watch: t must have a floating type, got ", t); });
  check(is_float(gradient.dtype), Kind::dtype,
        [&] { return cat("watch: gradient must have a floating type, got ", gradient, " for ", t); });
  check(gradient.size() == t.size(), Kind::shape, [&] {
    return cat("watch: gradient has ", gradient.size(), " elements but the tensor has ", t.size(), "; gradient is ",
               gradient, ", tensor is ", t);
  });
  check(gradient.data != nullptr || t.size() == 0, Kind::usage,
        [&] { return cat("watch: gradient has no memory; give it a tensor of ", t.size(), " elements"); });
  TapeState& state = TapeAccess::state(*this);
  check(!state.running, Kind::usage, [] { return std::string("watch: called while backward runs on this tape"); });
  check(detail::live_tape(t) != this, Kind::usage, [&] {
    return cat("watch: ", t, " is on this tape already; watch a tensor once, before its first use, or call clear()");
  });
  const std::int64_t value = state.add_value(t);
  state.values.back().leaf = std::int64_t(state.leaves.size());
  state.leaves.push_back({value, gradient, accumulate, false, group});
  t.set_tape(this, state.id_of(value));
}

std::size_t Tape::node_count() const { return state_ ? state_->nodes.size() : 0; }

void Tape::clear() {
  check(!state_ || !state_->running, Kind::usage, [] { return std::string("clear: called while backward runs"); });
  state_.reset();
}

namespace detail {

Tape* live_tape(const Tensor& t) {
  if (!t.tape() || t.tape_id() < 0) return nullptr;
  LiveSerials& all = live_serials();
  const std::lock_guard lock(all.mutex);
  return all.set.contains(t.tape_id() >> 32) ? static_cast<Tape*>(t.tape()) : nullptr;
}

Tape* common_tape(std::string_view op, std::span<const Tensor> in, std::span<const bool> differentiable) {
  Tape* common = nullptr;
  for (std::size_t i = 0; i < in.size(); ++i) {
    Tape* tape = differentiable[i] ? live_tape(in[i]) : nullptr;
    if (!tape) continue;
    while (Tape* inner = TapeAccess::state(*tape).inner) tape = inner;
    check(!common || common == tape, Kind::usage, [&] {
      return cat(op, ": inputs are on two different tapes; input ", i, " is ", in[i],
                 ". Use one tape, or pass detached() values");
    });
    common = tape;
  }
  return common;
}

std::int64_t value_on(Tape& tape, const Tensor& t) {
  TapeState& state = TapeAccess::state(tape);
  if ((t.tape_id() >> 32) == state.serial) return t.tape_id() & 0xffffffff;
  for (const auto& [outer, value] : state.imports)
    if (outer == t.tape_id()) return value;
  fail(Kind::usage, cat("recompute: fn uses ", t, ", which is on the tape outside but is neither the argument x nor ",
                        "listed in params; list every watched tensor that fn uses"));
}

void record(Tape& tape, std::unique_ptr<Node> node, std::span<const Tensor> in, std::span<const bool> differentiable,
            std::span<Tensor> out) {
  TapeState& state = TapeAccess::state(tape);
  node->inputs.reserve(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool on_tape = differentiable[i] && live_tape(in[i]) != nullptr;
    node->inputs.push_back({on_tape ? value_on(tape, in[i]) : -1, in[i].shape()});
  }
  node->outputs.reserve(out.size());
  for (Tensor& y : out) {
    if (!y || !is_float(y.dtype())) {
      node->outputs.push_back(-1);
      continue;
    }
    const std::int64_t value = state.add_value(y);
    node->outputs.push_back(value);
    y.set_tape(&tape, state.id_of(value));
  }
  state.nodes.push_back(std::move(node));
}

bool inspects(const Tape& tape) { return TapeAccess::watches_nonfinite(tape) && tape.first_nonfinite_op().empty(); }

void inspect(Tape& tape, std::string_view op, std::span<const Tensor> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!out[i] || !is_float(out[i].dtype())) continue;
    const std::vector<double> values = out[i].to_host();
    std::size_t at = 0;
    while (at < values.size() && std::isfinite(values[at])) ++at;
    if (at == values.size()) continue;
    TapeAccess::note_nonfinite(tape, cat(op, " (op ", tape.node_count(), " on the tape, output ", i, " = ", out[i],
                                         ", element ", at, " is ", values[at], ")"));
    return;
  }
}

}  // namespace detail
}  // namespace eg
