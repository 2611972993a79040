// autograd/recompute.cpp - trading time for memory (Chen, Xu, Zhang, Guestrin 2016, arXiv:1604.06174).
//
// Forward runs fn with recording paused and keeps x alone. When backward reaches the node, fn runs again on a nested
// tape whose leaves are x and the parameters, with the destinations that the outer tape chose for them; the nested tape
// then runs from its own end. Contributions arrive in the order of the plain run, so the gradients are the same bits.
#include <utility>

#include "autograd/apply.h"
#include "autograd/tape_state.h"

namespace eg {

namespace {

class Paused {
 public:
  explicit Paused(Tape& tape) : tape_(tape) { tape_.pause(); }
  ~Paused() { tape_.resume(); }
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;

 private:
  Tape& tape_;
};

/// While it lives, ops on tensors of `outer` are recorded on `inner`.
class Nested {
 public:
  Nested(Tape& outer, Tape& inner) : outer_(outer) { TapeAccess::state(outer_).inner = &inner; }
  ~Nested() { TapeAccess::state(outer_).inner = nullptr; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  Tape& outer_;
};

class RecomputeNode final : public Node {
 public:
  RecomputeNode(Tape& tape, std::vector<Tensor> in, std::function<Tensor(const Tensor&)> fn)
      : Node("recompute"), tape_(tape), in_(std::move(in)), fn_(std::move(fn)) {}

  void backward(std::span<const Tensor> dy, std::span<Destination> to) override {
    Tape inner;
    TapeState& state = TapeAccess::state(inner);
    for (std::size_t i = 0; i < in_.size(); ++i) {
      if (!to[i].wanted) continue;
      const std::int64_t value = state.add_value(in_[i]);
      state.values.back().leaf = std::int64_t(state.leaves.size());
      state.leaves.push_back({value, to[i].view, to[i].accumulate, false, -1});
      state.imports.emplace_back(in_[i].tape_id(), value);
    }
    Tensor x = in_[0].detached();
    if (to[0].wanted) x.set_tape(&inner, state.id_of(value_of(state, in_[0])));
    const Nested nested(tape_, inner);  // until the end: nodes of `inner` may recompute in their turn
    Tensor y = fn_(x);
    check(y && y.shape() == dy[0].shape() && y.dtype() == dy[0].dtype(), Kind::usage, [&] {
      return cat("recompute: fn gave ", y, " the second time but its gradient has shape ", dy[0].shape(),
                 "; fn must be deterministic");
    });
    if (detail::live_tape(y)) detail::contribute(state, detail::value_on(inner, y), dy[0]);
    x = {}, y = {};  // what nobody saved is free before the nested tape runs
    state.running = true;
    detail::run_backward(inner, false);
    std::size_t leaf = 0;
    for (Destination& d : to)
      if (d.wanted) d.wanted = state.leaves[leaf++].written;
  }

 private:
  static std::int64_t value_of(const TapeState& state, const Tensor& t) {
    for (const auto& [outer, value] : state.imports)
      if (outer == t.tape_id()) return value;
    return -1;
  }
  Tape& tape_;              // outlives its nodes
  std::vector<Tensor> in_;  // x, then the tensors that fn uses; they keep their ids on the outer tape
  std::function<Tensor(const Tensor&)> fn_;
};

}  // namespace

Tensor recompute(const Tensor& x, std::span<const Tensor> params, std::function<Tensor(const Tensor&)> fn) {
  check(bool(x), Kind::usage, [] { return std::string("recompute: x is an empty tensor"); });
  check(bool(fn), Kind::usage, [] { return std::string("recompute: fn is empty"); });
  std::vector<Tensor> in{x};
  for (const Tensor& p : params) {
    bool known = !detail::live_tape(p);  // a constant needs no announcement
    for (const Tensor& t : in) known = known || t.tape_id() == p.tape_id();
    if (!known) in.push_back(p);
  }
  const auto differentiable = std::make_unique<bool[]>(in.size());
  std::fill_n(differentiable.get(), in.size(), true);
  const std::span<const bool> all(differentiable.get(), in.size());
  Tape* const tape = detail::common_tape("recompute", in, all);
  if (!tape || !tape->recording()) return fn(x);
  Tensor y;
  {
    const Paused paused(*tape);
    y = fn(x).detached();
  }
  check(bool(y), Kind::usage, [] { return std::string("recompute: fn returned an empty tensor"); });
  auto node = std::make_unique<RecomputeNode>(*tape, in, std::move(fn));
  detail::record(*tape, std::move(node), in, all, std::span<Tensor>(&y, 1));
  return y;
}

}  // namespace eg
