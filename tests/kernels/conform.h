// tests/kernels/conform.h - the conformance suite: one entry of a device's table against the same entry of `reference`.
//
// A test says how to build the arguments of one call, and how far each output may be off. conforms() then
//   - draws every input once, rounded to the device's types, so that both tables start from equal numbers;
//   - runs `reference` on them in double;
//   - runs the device under test: `cpu` on every instruction set of this machine, twice on 1 thread, and on 3 (some
//     cases also on 2); another device under each of its schedules. The bits must be equal;
//   - compares, and looks at the guard bytes around every buffer and at the inputs, which must be untouched.
// The same sources make one test program per device; device_under_test() is what differs.
// Outputs that need not be initialised start as NaN, so that one that is read or left out shows.
#pragma once
#include <doctest/doctest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "engine/cpu/isa.h"
#include "engine/kernels.h"
#include "engine/parallel.h"
#include "tests/tolerance.h"

namespace eg::test {

using Values = std::map<std::string, std::vector<double>>;
/// Value i of a drawn buffer.
using Draw = std::function<double(const Key&, std::int64_t)>;

inline Draw normal(double scale = 1.0, double offset = 0.0) {
  return [=](const Key& k, std::int64_t i) { return offset + scale * k.normal(std::uint64_t(i)); };
}
inline Draw between(double low, double high) {
  return [=](const Key& k, std::int64_t i) { return low + (high - low) * k.uniform(std::uint64_t(i)); };
}
inline Draw integers(std::int64_t low, std::int64_t high) {
  return [=](const Key& k, std::int64_t i) {
    return double(low + std::int64_t(k.below(std::uint64_t(i), std::uint32_t(high - low + 1))));
  };
}
inline Draw constant(double value) {
  return [=](const Key&, std::int64_t) { return value; };
}

struct DeviceUnderTest {
  Device device;
  /// Other devices than cpu: in how many ways each case runs, and what selects one before a run.
  int schedules = 1;
  void (*use_schedule)(int) = nullptr;
  /// A case whose buffers hold more elements in all runs in the first of these ways alone.
  std::int64_t most_repeated = std::numeric_limits<std::int64_t>::max();
};
/// Every test program of this folder defines its own.
const DeviceUnderTest& device_under_test();
/// Of e^x, as a share of it: the vector kernels' own, or what a GPU's may have. The emulated device is held to the GPU's.
inline double exp_error() { return device_under_test().device.is_host() ? kExpError : kDeviceExpError; }
/// What the trainer gives updates: bf16 gradients on devices that are bound by memory, where `narrow` asks for them; the
/// cpu has fp32 alone.
inline DType gradient_type(bool narrow) {
  return narrow && !device_under_test().device.is_host() ? DType::bf16 : DType::f32;
}

enum class Use { input, fresh, added };  // added: an output that holds drawn values before the call

/// The buffers of one call, on the reference device in the exact form (floats held in double, with the values they have
/// on the device under test), else on the device under test. On a device with memory of its own each buffer is a block
/// there, and run() copies all of them there and back.
class Arguments {
 public:
  /// With `drawn`, the buffers of an equal call, their values are copied instead of drawn again.
  Arguments(DType activation, bool exact, const Arguments* drawn = nullptr);
  ~Arguments();
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  /// A buffer of the activation type, of the statistics' type (f32), or of any other.
  TensorView x(const std::string& name, const Shape& shape, const Draw& draw = normal(), Use use = Use::input) {
    return typed(name, activation_, shape, draw, use);
  }
  TensorView stat(const std::string& name, const Shape& shape, const Draw& draw = normal(), Use use = Use::input) {
    return typed(name, DType::f32, shape, draw, use);
  }
  TensorView typed(const std::string& name, DType type, const Shape& shape, const Draw& draw = normal(),
                   Use use = Use::input);
  /// An output; it adds to drawn values when `adds`.
  TensorView out(const std::string& name, DType type, const Shape& shape, bool adds = false) {
    return typed(name, type, shape, normal(), adds ? Use::added : Use::fresh);
  }
  TensorView x_out(const std::string& name, const Shape& shape, bool adds = false) {
    return out(name, activation_, shape, adds);
  }
  /// The same, but of the device's type also in the exact form: for a stored result that the same call reads again.
  TensorView rounded_out(const std::string& name, DType type, const Shape& shape, bool adds = false);

  DType activation() const { return activation_; }
  bool exact() const { return exact_; }
  /// Elements of all buffers.
  std::int64_t size() const;
  Values values() const;
  /// Type on the device of every output.
  std::map<std::string, DType> outputs() const;
  /// All bytes that the call may have written, and the state below.
  std::vector<std::byte> bytes() const;
  /// The state alone.
  std::vector<std::byte> bytes_of_state() const;
  /// Empty, or what was written that must not be.
  std::string strays() const;

  /// Where a call finds `step` and `state` below.
  StepRecord* step_record() { return static_cast<StepRecord*>(place(&step, device_step_)); }
  ArrowState* arrow_state() { return static_cast<ArrowState*>(place(&state, device_state_)); }

  /// Runs one entry of the device's table on arguments made of these buffers.
  template <class Args>
  void run(void (*KernelTable::*entry)(const Args&, Stream), const Args& args) {
    upload();
    (kernels(device_).*entry)(args, {});
    download();
  }

  // State of the optimizer entries, as the host sees it.
  StepRecord step;
  ArrowState state;
  std::vector<Segment> segments;
  std::vector<ArrowTarget> targets;

 private:
  struct Buffer {
    std::string name;
    Use use;
    DType on_device;
    TensorView view;                       // into block
    std::vector<std::byte> block, before;  // guard, data, guard
    std::size_t size = 0;
    void* there = nullptr;  // the block on a device with memory of its own
  };
  void* place(void* host, void* device) const { return device_.is_host() ? host : device; }
  void upload();
  void download();
  TensorView make(const std::string& name, DType on_device, DType held, const Shape& shape, const Draw& draw, Use use);

  DType activation_;
  bool exact_;
  const Arguments* drawn_;
  const Device device_;
  const std::size_t guard_;
  void *device_step_ = nullptr, *device_state_ = nullptr;
  std::deque<Buffer> buffers_;
};

/// What an output may be off by, before the rounding of its own storage (conforms() adds that): values before the call,
/// and exact results, of every buffer by name. An output that is not mentioned must be equal, bit for bit once rounded.
using Allowed = std::function<Values(const Values& start, const Values& exact)>;
inline Allowed equal() {
  return [](const Values&, const Values&) { return Values{}; };
}

/// Entries that some test of this program runs; test_table.cpp compares them with the table.
std::vector<std::string>& covered_entries();
struct Covers {
  Covers(std::initializer_list<const char*> names) {
    for (const char* name : names) covered_entries().emplace_back(name);
  }
};

/// The instruction sets that this machine has.
std::vector<cpu::Isa> instruction_sets();

namespace detail {
void compare(const Arguments& start, const Arguments& exact, const Arguments& got, const Allowed& allowed);
/// Calls run() in every way that the device under test has; all runs of one `variant` must give equal bits. On cpu:
/// every instruction set on several numbers of threads (puts the instruction set back, not the number of threads).
/// `size`: elements that the case holds.
void everywhere(std::int64_t size, const std::function<void(int variant, bool first_round)>& run);
}  // namespace detail

/// Runs one case; `build` makes the arguments of the call from a set of buffers.
template <class Args>
void conforms(void (*KernelTable::*entry)(const Args&, Stream), const std::string& label, DType activation,
              const std::function<Args(Arguments&)>& build, const Allowed& allowed) {
  CAPTURE(label);
  CAPTURE(cat(activation));
  Arguments start(activation, true), exact(activation, true, &start);
  build(start);
  exact.run(entry, build(exact));
  std::map<int, std::vector<std::byte>> first;
  detail::everywhere(start.size(), [&](int variant, bool first_round) {
    Arguments got(activation, false, &start);
    got.run(entry, build(got));
    CHECK(got.strays() == "");
    if (!first_round) {
      CHECK(got.bytes() == first.at(variant));
      return;
    }
    first[variant] = got.bytes();
    detail::compare(start, exact, got, allowed);
  });
}
#define EVERGRAD_CONFORMS(entry, Args, ...) ::eg::test::conforms<Args>(&::eg::KernelTable::entry, __VA_ARGS__)

/// Calls f(activation) for f32 and bf16.
template <class F>
void for_each_activation(const F& f) {
  for (const DType t : {DType::f32, DType::bf16}) f(t);
}

}  // namespace eg::test
