// autograd/tape_state.h - the inside of a Tape. Included by autograd/*.cpp only.
//
// Ids: a recorded tensor carries (serial << 32) | value index. Serials are unique in the process and change whenever a
// tape is cleared, so a tensor that outlives its step can never be mistaken for one of a later step.
#pragma once
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "autograd/node.h"
#include "autograd/tape.h"

namespace eg {

/// Anything a gradient can flow to: an op's output or a leaf.
struct Value {
  Shape shape;
  DType dtype = DType::f32;
  Device device;
  Tensor gradient;         // of an op's output, while backward runs; maybe shared with other values
  std::int64_t leaf = -1;  // index into leaves
};

/// A value whose gradient the caller asked for.
struct Leaf {
  std::int64_t value = -1;
  TensorView gradient;
  bool accumulate = false;  // the destination holds something to add to; set by the first contribution at the latest
  bool written = false;     // a contribution arrived
  int group = -1;
};

struct TapeState {
  TapeState();
  ~TapeState();
  TapeState(const TapeState&) = delete;
  TapeState& operator=(const TapeState&) = delete;

  std::int64_t serial;
  std::vector<std::unique_ptr<Node>> nodes;
  std::vector<Value> values;
  std::vector<Leaf> leaves;
  std::vector<std::pair<std::int64_t, std::int64_t>> imports;  // (id on an outer tape, value here), for recomputation
  Tape* inner = nullptr;                                       // the nested tape that is recording right now
  bool running = false;                                        // backward is under way

  std::int64_t id_of(std::int64_t value) const { return (serial << 32) | value; }
  std::int64_t add_value(const Tensor& t);
};

/// The only way into a tape's private parts.
struct TapeAccess {
  static TapeState& state(Tape& tape) {
    if (!tape.state_) tape.state_ = std::make_shared<TapeState>();
    return *tape.state_;
  }
  static void reset(Tape& tape) { tape.state_.reset(); }
  static bool watches_nonfinite(const Tape& tape) { return tape.check_finite_; }
  static void note_nonfinite(Tape& tape, std::string op) {
    if (tape.first_nonfinite_.empty()) tape.first_nonfinite_ = std::move(op);
  }
  static const std::function<void(int)>& callback(const Tape& tape) { return tape.callback_; }
};

namespace detail {

/// The tape that recorded t, or nullptr when t has none, or it is gone or was cleared since.
Tape* live_tape(const Tensor& t);
/// Index of t's value on `tape`, which is t's own tape or one nested inside it. Throws Error{usage} when a recomputed
/// function reaches for an outer tensor that was not announced.
std::int64_t value_on(Tape& tape, const Tensor& t);
/// Adds the gradient t to what value `v` has so far: shares, copies or adds, whatever is least.
void contribute(TapeState& state, std::int64_t v, const Tensor& t);
/// Runs every node from the end. Leaves that nothing reached stay as they are when `fill_leaves` is false.
void run_backward(Tape& tape, bool fill_leaves);

}  // namespace detail
}  // namespace eg
