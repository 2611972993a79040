// tests/kernels/test_matmul_paths.cpp - every way the CPU can compute a product, against a plain loop in double.
//
// The conformance suite sees only the path that this machine prefers; here each path that it can run at all is called
// by name. Bounds as everywhere: 4 sqrt(k) u(fp32) times the sum of absolute terms, plus u(output) |result|.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string_view>
#include <tuple>
#include <vector>

#include "engine/cpu/features.h"
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#include "engine/cpu/matmul.h"
#include "engine/parallel.h"
#include "tests/kernels/amx_in_software.h"

using namespace eg;
using namespace eg::cpu;

namespace {

constexpr float kSentinel = 12345.0f;

/// Host numbers of one type, with a sentinel behind the last.
class Numbers {
 public:
  Numbers(std::int64_t n, DType type, unsigned seed) : type_(type), wide_(std::size_t(n) + 1), narrow_(wide_.size()) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < wide_.size(); ++i) {
      const float x = i + 1 == wide_.size() ? kSentinel : normal(random);
      narrow_[i] = bf16(x), wide_[i] = type == DType::bf16 ? float(narrow_[i]) : x;
    }
  }
  TensorView view(const Shape& shape) {
    return {type_ == DType::f32 ? static_cast<void*>(wide_.data()) : static_cast<void*>(narrow_.data()), type_, shape};
  }
  double at(std::int64_t i) const {
    return type_ == DType::f32 ? double(wide_[std::size_t(i)]) : double(narrow_[std::size_t(i)]);
  }
  bool sentinel_intact() const {
    return at(std::int64_t(wide_.size()) - 1) == double(type_ == DType::f32 ? kSentinel : float(bf16(kSentinel)));
  }
  /// A fingerprint of all bits.
  std::size_t fingerprint() const {
    const std::hash<std::string_view> hash;
    return hash({reinterpret_cast<const char*>(wide_.data()), wide_.size() * sizeof(float)}) * 31 +
           hash({reinterpret_cast<const char*>(narrow_.data()), narrow_.size() * sizeof(bf16)});
  }

 private:
  DType type_;
  std::vector<float> wide_;
  std::vector<bf16> narrow_;
};

struct Case {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  Epilogue epilogue;
  GeluKind gelu;
  DType x, c;
};

double gelu_of(GeluKind kind, double z) {
  if (kind == GeluKind::erf) return 0.5 * z * std::erfc(-z / std::sqrt(2.0));
  return 0.5 * z * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z)));
}
double gelu_grad_of(GeluKind kind, double z) {
  if (kind == GeluKind::erf)
    return 0.5 * std::erfc(-z / std::sqrt(2.0)) + z * std::exp(-0.5 * z * z) / std::sqrt(2.0 * M_PI);
  const double u = std::sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z), t = std::tanh(u);
  return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * std::sqrt(2.0 / M_PI) * (1.0 + 0.134145 * z * z);
}

/// Operands of one case; `start` values of outputs are kept for accumulation.
struct Problem {
  explicit Problem(const Case& the_case)
      : t(the_case),
        a(t.m * t.k, t.x, 1),
        b(t.n * t.k, t.x, 2),
        bias(t.n, t.x, 3),
        c(t.m * t.n, t.c, 4),
        aux(t.m * t.n, t.x, 5),
        grad(t.epilogue == Epilogue::bias_grad_a ? t.m : t.n, DType::f32, 6) {}
  Matmul args() {
    Matmul m;
    m.a = a.view(t.transpose_a ? Shape{t.k, t.m} : Shape{t.m, t.k});
    m.b = b.view(t.transpose_b ? Shape{t.n, t.k} : Shape{t.k, t.n});
    m.c = c.view({t.m, t.n});
    m.transpose_a = t.transpose_a, m.transpose_b = t.transpose_b;
    m.accumulate = m.accumulate_bias_grad = t.accumulate;
    m.epilogue = t.epilogue, m.gelu = t.gelu;
    m.bias = bias.view({t.n});
    m.aux = aux.view({t.m, t.n});
    m.bias_grad = grad.view({t.epilogue == Epilogue::bias_grad_a ? t.m : t.n});
    return m;
  }
  double a_at(std::int64_t i, std::int64_t k) const { return a.at(t.transpose_a ? k * t.m + i : i * t.k + k); }
  double b_at(std::int64_t k, std::int64_t j) const { return b.at(t.transpose_b ? j * t.k + k : k * t.n + j); }

  const Case t;
  Numbers a, b, bias, c, aux, grad;
};

struct Sum {
  double value = 0.0, absolute = 1.0;  // of the terms
};
/// a b of one case; epilogues and paths share it.
const std::vector<Sum>& products(const Problem& p) {
  static std::map<std::tuple<DType, std::int64_t, std::int64_t, std::int64_t, bool, bool>, std::vector<Sum>> known;
  const Case& t = p.t;
  std::vector<Sum>& all = known[{t.x, t.m, t.n, t.k, t.transpose_a, t.transpose_b}];
  if (!all.empty() || t.m * t.n == 0) return all;
  all.resize(std::size_t(t.m * t.n));
  for (std::int64_t i = 0; i < t.m; ++i)
    for (std::int64_t j = 0; j < t.n; ++j)
      for (std::int64_t k = 0; k < t.k; ++k) {
        Sum& sum = all[std::size_t(i * t.n + j)];
        const double term = p.a_at(i, k) * p.b_at(k, j);
        sum.value += term, sum.absolute += std::abs(term);
      }
  return all;
}

/// Largest error of all outputs as a fraction of what is allowed.
double worst_error(const Problem& start, const Problem& got) {
  const Case& t = start.t;
  const double u = unit_roundoff(DType::f32), depth = 4.0 * std::sqrt(double(t.k) + 1.0) * u;
  double worst = 0.0;
  const auto compare = [&](double value, double wanted, double allowed) {
    const double error = std::abs(value - wanted);
    worst = error <= allowed ? std::max(worst, error / (allowed + 1e-300)) : HUGE_VAL;
  };
  const std::vector<Sum>& sums_of_terms = products(start);
  std::vector<double> sums(std::size_t(t.n), 0.0), sums_allowed(std::size_t(t.n), 1e-6);
  for (std::int64_t i = 0; i < t.m; ++i)
    for (std::int64_t j = 0; j < t.n; ++j) {
      const std::int64_t at = i * t.n + j;
      double value = sums_of_terms[std::size_t(at)].value;
      double allowed = depth * sums_of_terms[std::size_t(at)].absolute;
      if (t.epilogue == Epilogue::bias || t.epilogue == Epilogue::bias_gelu) value += start.bias.at(j);
      if (t.epilogue == Epilogue::bias_gelu) {
        compare(got.aux.at(at), value, allowed + unit_roundoff(t.x) * std::abs(value));
        value = gelu_of(t.gelu, value);
        allowed = 1.13 * allowed + 8.0 * u * (1.0 + std::abs(value));  // |gelu'| <= 1.13
      }
      if (t.epilogue == Epilogue::dgelu) {
        value *= gelu_grad_of(t.gelu, start.aux.at(at));
        allowed = 1.13 * allowed + 8.0 * u * (1.0 + std::abs(value));
        sums[std::size_t(j)] += value, sums_allowed[std::size_t(j)] += allowed;
      }
      if (t.accumulate) value += start.c.at(at);
      compare(got.c.at(at), value, allowed + unit_roundoff(t.c) * std::abs(value));
    }
  for (std::int64_t j = 0; t.epilogue == Epilogue::dgelu && j < t.n; ++j)
    compare(got.grad.at(j), sums[std::size_t(j)] + (t.accumulate ? start.grad.at(j) : 0.0),
            sums_allowed[std::size_t(j)]);
  for (std::int64_t i = 0; t.epilogue == Epilogue::bias_grad_a && i < t.m; ++i) {
    double value = t.accumulate ? start.grad.at(i) : 0.0, absolute = 1.0;
    for (std::int64_t k = 0; k < t.k; ++k) value += start.a_at(i, k), absolute += std::abs(start.a_at(i, k));
    compare(got.grad.at(i), value, depth * absolute);
  }
  return worst;
}

std::vector<Case> cases_of(DType x, DType c) {
  const std::int64_t sizes[][3] = {{1, 1, 1},     {0, 3, 4},      {3, 0, 4},     {3, 4, 0},
                                   {7, 13, 5},    {31, 33, 32},   {14, 32, 384}, {15, 65, 385},
                                   {61, 97, 801}, {33, 31, 2053}, {197, 64, 67}, {128, 130, 3}};
  std::vector<Case> all;
  for (const auto& s : sizes)
    for (int transposed = 0; transposed < 4; ++transposed)
      for (const Epilogue e :
           {Epilogue::none, Epilogue::bias, Epilogue::bias_gelu, Epilogue::dgelu, Epilogue::bias_grad_a}) {
        if (e == Epilogue::bias_grad_a && !(transposed & 1)) continue;
        const bool odd = all.size() % 2 != 0, third = all.size() % 3 == 0;
        all.push_back({s[0], s[1], s[2], (transposed & 1) != 0, (transposed & 2) != 0, third, e,
                       odd ? GeluKind::tanh : GeluKind::erf, x, c});
      }
  return all;
}

struct Way {
  std::string name;
  std::function<void(const Matmul&)> run;
};

/// Every path of this machine, and the AMX kernel on tiles in software where its packing can run.
std::vector<Way> ways(DType x) {
  std::vector<Way> all;
  for (const MatmulPath path : matmul_paths(x))
    all.push_back({to_string(path), [path](const Matmul& m) { matmul_on(path, m); }});
#if defined(__x86_64__)
  if (x == DType::bf16 && isa() == Isa::avx512)
    all.push_back({"AMX in software",
                   [](const Matmul& m) { run_tiled(m, MatmulPlan(m), amx_in_software(), choose_epilogue(m)); }});
#endif
  return all;
}

/// Runs every case in every way.
template <class Body>
void for_each_case(const Body& body) {
  const std::pair<DType, DType> types[] = {
      {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}};
  for (const auto& pair : types) {
    const DType x = pair.first, c = pair.second;
    for (const Way& way : ways(x))
      for (const Case& t : cases_of(x, c)) {
        CAPTURE(way.name);
        CAPTURE(std::string(to_string(x)));
        CAPTURE(std::string(to_string(c)));
        CAPTURE(cat(t.m, " x ", t.n, " x ", t.k, " ta ", t.transpose_a, " tb ", t.transpose_b, " epilogue ",
                    int(t.epilogue), " accumulate ", t.accumulate));
        body(way, t);
      }
  }
}

}  // namespace

TEST_CASE("matmul: every path of this machine agrees with a loop in double and stays inside its buffers") {
  for_each_case([](const Way& way, const Case& t) {
    const Problem start(t);
    Problem got(t);
    way.run(got.args());
    CHECK(worst_error(start, got) <= 1.0);
    CHECK(got.c.sentinel_intact());
    CHECK(got.aux.sentinel_intact());
    CHECK(got.grad.sentinel_intact());
  });
}

TEST_CASE("matmul: every path gives the same bits on 1 and on 3 threads") {
  const int before = num_threads();
  std::vector<std::size_t> one;  // all cases on 1 thread first: changing the number takes longer than a product
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    std::size_t at = 0;
    for_each_case([&](const Way& way, const Case& t) {
      if (t.m * t.n * t.k < 30000) return;
      Problem now(t);
      way.run(now.args());
      for (const Numbers* output : {&now.c, &now.aux, &now.grad}) {
        if (threads == 1)
          one.push_back(output->fingerprint());
        else
          CHECK(output->fingerprint() == one[at++]);
      }
    });
  }
  set_num_threads(before);
}

TEST_CASE("matmul: types and shapes that do not fit are refused with their names") {
  const auto kind_of = [](const Matmul& m) {
    try {
      cpu::matmul(m, {});
    } catch (const Error& e) { return e.kind; }
    return Kind::internal;
  };
  Numbers wide(64, DType::f32, 1), narrow(64, DType::bf16, 2);
  Matmul m{.a = wide.view({4, 8}), .b = wide.view({8, 8}), .c = narrow.view({4, 8})};
  CHECK(kind_of(m) == Kind::dtype);  // f32 operands have no bf16 result
  m.c = wide.view({4, 8}), m.b = narrow.view({8, 8});
  CHECK(kind_of(m) == Kind::dtype);
  m.b = wide.view({4, 8});
  CHECK(kind_of(m) == Kind::shape);
  m.b = wide.view({8, 8}), m.epilogue = Epilogue::bias;
  CHECK(kind_of(m) == Kind::shape);  // no bias given
  m.epilogue = Epilogue::bias_grad_a, m.bias_grad = wide.view({4});
  CHECK(kind_of(m) == Kind::usage);  // only next to dY^T X
}

TEST_CASE("features: the description names the path of both types") {
  const std::string text = describe_features();
  CHECK(text.find(to_string(matmul_path(DType::f32))) != std::string::npos);
  CHECK(text.find(to_string(matmul_path(DType::bf16))) != std::string::npos);
}
