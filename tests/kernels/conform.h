// tests/kernels/conform.h - the conformance suite: one entry of the cpu table against the same entry of `reference`.
//
// A test says how to build the arguments of one call, and how far each output may be off. conforms() then
//   - draws every input once, rounded to the cpu's types, so that both tables start from equal numbers;
//   - runs `reference` on them in double;
//   - runs `cpu` on every instruction set of this machine, twice on 1 thread, and on 3 (some cases also on 2): the bits
//     must be equal;
//   - compares, and looks at the guard bytes around every buffer and at the inputs, which must be untouched.
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

enum class Use { input, fresh, added };  // added: an output that holds drawn values before the call

/// The buffers of one call. In the exact form, floats are held in double, with the values they have on the cpu.
class Arguments {
 public:
  /// With `drawn`, the buffers of an equal call, their values are copied instead of drawn again.
  Arguments(DType activation, bool exact, const Arguments* drawn = nullptr)
      : activation_(activation), exact_(exact), drawn_(drawn) {}
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
  /// The same, but of the cpu's type also in the exact form: for a stored result that the same call reads again.
  TensorView rounded_out(const std::string& name, DType type, const Shape& shape, bool adds = false);

  DType activation() const { return activation_; }
  bool exact() const { return exact_; }
  Values values() const;
  /// Type on the cpu of every output.
  std::map<std::string, DType> outputs() const;
  /// All bytes that the call may have written, and the state below.
  std::vector<std::byte> bytes() const;
  /// Empty, or what was written that must not be.
  std::string strays() const;

  // Host-side state of the optimizer entries.
  StepRecord step;
  ArrowState state;
  std::vector<Segment> segments;
  std::vector<ArrowTarget> targets;

 private:
  struct Buffer {
    std::string name;
    Use use;
    DType on_cpu;
    TensorView view;
    std::vector<std::byte> block, before;  // guard, data, guard
    std::size_t size = 0;
  };
  TensorView make(const std::string& name, DType on_cpu, DType held, const Shape& shape, const Draw& draw, Use use);

  DType activation_;
  bool exact_;
  const Arguments* drawn_;
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
/// Calls run() for every instruction set on several numbers of threads. Puts the instruction set
/// back, not the number of threads.
void everywhere(const std::function<void(cpu::Isa, bool first_round)>& run);
}  // namespace detail

/// Runs one case; `build` makes the arguments of the call from a set of buffers.
template <class Args>
void conforms(void (*KernelTable::*entry)(const Args&, Stream), const std::string& label, DType activation,
              const std::function<Args(Arguments&)>& build, const Allowed& allowed) {
  CAPTURE(label);
  CAPTURE(cat(activation));
  Arguments start(activation, true), exact(activation, true, &start);
  build(start);
  (reference_table().*entry)(build(exact), {});
  std::map<cpu::Isa, std::vector<std::byte>> first;
  detail::everywhere([&](cpu::Isa isa, bool first_round) {
    Arguments got(activation, false, &start);
    (cpu_table().*entry)(build(got), {});
    CHECK(got.strays() == "");
    if (!first_round) {
      CHECK(got.bytes() == first.at(isa));
      return;
    }
    first[isa] = got.bytes();
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
