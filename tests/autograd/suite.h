// tests/autograd/suite.h - a test as data: what an op is tried on, and what must come out.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/op.h"
#include "engine/rng.h"
#include "engine/shape.h"

namespace eg::test {

/// How an argument's values are drawn, and which dtype it has on a device.
enum class Draw {
  absent,
  activation,   // normal, activation type
  parameter,    // normal, activation type; its gradient is taken in the statistic type
  statistic,    // normal, statistic type
  positive,     // 0.5 .. 1.5, statistic type
  rows_of_one,  // rows that sum to 1, statistic type
  mask,         // 0 or 2, statistic type
  labels,       // i32 below `limit`
  crop,         // i32 {top, left, flip}, the first two in [-1, limit)
  bytes,        // u8
  allowed       // u8, 1 except for entry `limit`
};

struct Arg {
  Shape shape;
  Draw draw = Draw::activation;
  double offset = 0.0;
  std::int64_t limit = 0;
};

/// A tensor on the host, in double.
struct Host {
  Shape shape;
  std::vector<double> v;
  explicit operator bool() const { return shape.rank() > 0; }
};
using Hosts = std::vector<Host>;

template <class O>
struct Case {
  std::string label;
  std::vector<Arg> args;
  typename O::Attrs attrs{};
  bool gradcheck = true;
};

/// An argument or attribute made wrong; the error must name `word`.
template <class O>
struct Bad {
  std::string word;
  std::function<void(typename O::In&, typename O::Attrs&)> spoil;
};

template <class O>
struct Suite {
  std::vector<std::string> arguments;
  std::vector<Case<O>> cases;
  /// The plain definition of the op, in double, written independently of every kernel.
  std::function<Hosts(const Hosts&, const typename O::Attrs&)> oracle;
  std::vector<Bad<O>> bad;
  /// The op composed of smaller ones, if there is such a form: a second oracle.
  std::function<typename O::Out(const typename O::In&, const typename O::Attrs&)> twin;
};

/// Defined in tests/cases/<op>.cpp for every op of AllOps; a missing one does not link.
template <class O>
Suite<O> suite();

inline Arg absent() { return {{}, Draw::absent}; }

// Small pieces of oracles.
Host host(const Shape& shape);
double gelu_value(double x, bool tanh_form);
Host linear_value(const Host& x, const Host& w, const Host& b);
Host layer_norm_value(const Host& x, const Host& gamma, const Host& beta, double eps);

}  // namespace eg::test
