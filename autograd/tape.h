// autograd/tape.h - the define-by-run tape: a vector of nodes in execution order, so backward is one loop from the end.
//
//   Tape tape;
//   tape.watch(weight, gradient_view);            // weight now carries the tape; results of ops on it are recorded
//   Tensor loss = mean_cross_entropy(linear(x, weight, bias), labels);
//   backward(tape, loss);                         // gradients stand in the views given to watch()
//
// A tensor knows its tape and a result inherits it, so there is no global or thread-local mode: ops on tensors without
// a tape are inference (no-grad), and keep nothing.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/op.h"

namespace eg {

struct TapeState;  // tape_state.h

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Makes `t` a leaf. Its gradient is written to `gradient` (same element count), added to what stands there when
  /// accumulate is set (gradient accumulation over micro-batches); a leaf that no gradient reaches is zero-filled
  /// (unless accumulate). `group` >= 0 joins the leaf to a gradient group, see on_gradient_final.
  void watch(Tensor& t, const TensorView& gradient, bool accumulate = false, int group = -1);

  /// Calls back from inside backward as soon as every leaf of `group` has its final gradient: after the last node that
  /// contributes to it has run. Order depends only on the order of recorded ops, so it is the same on all ranks.
  /// Groups without any contribution are final when backward begins. The callback only enqueues device work.
  void on_gradient_final(std::function<void(int group)> callback) { callback_ = std::move(callback); }

  /// While paused, ops whose inputs carry this tape record nothing and their results carry no tape.
  void pause() { ++paused_; }
  void resume() { --paused_; }
  bool recording() const { return paused_ == 0; }

  /// After every forward op, checks the outputs for non-finite values and remembers the first op that made one (slow:
  /// for finding out which op made a loss non-finite).
  std::string first_nonfinite_op() const { return first_nonfinite_; }
  void watch_nonfinite(bool on) { check_finite_ = on; }

  std::size_t node_count() const;
  void clear();

 private:
  friend struct TapeAccess;
  int paused_ = 0;
  bool check_finite_ = false;
  std::string first_nonfinite_;
  std::function<void(int)> callback_;
  std::shared_ptr<TapeState> state_;
};

/// Runs the tape from its end. `loss` must have one element and be recorded on the tape; d(loss)/d(loss) = seed.
/// Frees what each node saved as soon as it has run; the tape is empty afterwards.
/// Throws Error{usage} when loss was not recorded on this tape.
void backward(Tape& tape, const Tensor& loss, double seed = 1.0);

/// The general form: `gradients[i]` (shape, dtype and device of outputs[i]) is the gradient that reaches outputs[i]
/// from outside. The tape may keep and share these tensors while it runs, but never writes to them.
void backward(Tape& tape, std::span<const Tensor> outputs, std::span<const Tensor> gradients);

/// Runs `fn(x)` without recording it, and runs it again, recorded, when backward comes by: activations inside fn are
/// not kept (Chen et al. 2016, arXiv:1604.06174). fn must be deterministic and may use watched parameters of x's tape.
/// `params` lists the watched tensors that fn uses, so that their gradient groups are final only afterwards.
Tensor recompute(const Tensor& x, std::span<const Tensor> params, std::function<Tensor(const Tensor&)> fn);

}  // namespace eg
