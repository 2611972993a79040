// tests/kernels/test_matmul.cpp - the product of the table, with every epilogue (test_matmul_paths.cpp calls each way
// of computing it by name).
#include <array>
#include <cstdlib>

#include "engine/kernel_choices.h"
#include "engine/reference/gelu.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"matmul"};

struct Product {
  std::int64_t m, n, k;
  bool transpose_a, transpose_b, adds;
  Epilogue epilogue;
  GeluKind gelu;
  DType c, bias_grad;
  bool with_bias_grad;
};

Matmul arguments(Arguments& a, const Product& p) {
  const bool biased = p.epilogue == Epilogue::bias || p.epilogue == Epilogue::bias_gelu;
  const std::int64_t grads = p.epilogue == Epilogue::dgelu ? p.n : p.m;
  Matmul m;
  m.a = a.x("a", p.transpose_a ? Shape{p.k, p.m} : Shape{p.m, p.k});
  m.b = a.x("b", p.transpose_b ? Shape{p.n, p.k} : Shape{p.k, p.n});
  m.c = a.out("c", p.c, {p.m, p.n}, p.adds);
  m.transpose_a = p.transpose_a, m.transpose_b = p.transpose_b, m.accumulate = p.adds;
  m.epilogue = p.epilogue, m.gelu = p.gelu;
  if (biased) m.bias = a.x("bias", {p.n});
  if (p.epilogue == Epilogue::bias_gelu) m.aux = a.x_out("aux", {p.m, p.n});
  if (p.epilogue == Epilogue::dgelu) m.aux = a.x("aux", {p.m, p.n});
  if (p.with_bias_grad) m.bias_grad = a.out("bias_grad", p.bias_grad, {grads}, p.adds);
  m.accumulate_bias_grad = p.adds;
  return m;
}

/// s = a b and its error go through the epilogue: |gelu'| multiplies the error of its argument, and gelu itself has
/// one.
Values bounds(const Product& p, const Values& in, const Values& exact) {
  Values out{{"c", std::vector<double>(std::size_t(p.m * p.n))}};
  if (p.epilogue == Epilogue::bias_gelu) out["aux"] = out["c"];
  std::vector<double> error(std::size_t(p.n), 0.0), absolute(error);
  const std::vector<double>&a = in.at("a"), &b = in.at("b");
  const auto a_at = [&](std::int64_t i, std::int64_t k) {
    return a[std::size_t(p.transpose_a ? k * p.m + i : i * p.k + k)];
  };
  const auto b_at = [&](std::int64_t k, std::int64_t j) {
    return b[std::size_t(p.transpose_b ? j * p.k + k : k * p.n + j)];
  };
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.n; ++j) {
      const auto here = std::size_t(i * p.n + j), column = std::size_t(j);
      double s = 0.0, terms = 0.0;
      for (std::int64_t k = 0; k < p.k; ++k) {
        const double term = a_at(i, k) * b_at(k, j);
        s += term, terms += std::abs(term);
      }
      if (in.contains("bias")) s += in.at("bias")[column], terms += std::abs(in.at("bias")[column]);
      double e = sum_error(p.k + 1, terms), value = s;
      if (p.epilogue == Epilogue::bias_gelu) {
        out["aux"][here] = e;
        value = reference::gelu(p.gelu, s), e = kGeluSlope * e + gelu_error(p.gelu, s);
      }
      if (p.epilogue == Epilogue::dgelu) {
        const double z = in.at("aux")[here];
        value = s * reference::gelu_gradient(p.gelu, z);
        e = kGeluSlope * e + std::abs(s) * gelu_gradient_error(p.gelu, z) + elementwise_error(0.0, value);
      }
      error[column] += e, absolute[column] += std::abs(value);
      out["c"][here] = e + (p.adds ? elementwise_error(in.at("c")[here], exact.at("c")[here]) : 0.0);
    }
  if (p.with_bias_grad && p.epilogue == Epilogue::dgelu)
    for (std::size_t j = 0; j < error.size(); ++j)
      out["bias_grad"].push_back(error[j] +
                                 sum_error(p.m + 1, absolute[j] + (p.adds ? std::abs(in.at("bias_grad")[j]) : 0.0)));
  if (p.with_bias_grad && p.epilogue == Epilogue::bias_grad_a)
    for (std::int64_t i = 0; i < p.m; ++i) {
      double terms = p.adds ? std::abs(in.at("bias_grad")[std::size_t(i)]) : 0.0;
      for (std::int64_t k = 0; k < p.k; ++k) terms += std::abs(a_at(i, k));
      out["bias_grad"].push_back(sum_error(p.k + 1, terms));
    }
  if (p.with_bias_grad) out["bias_grad"];
  return out;
}

void conforms_product(DType t, const Product& p) {
  EVERGRAD_CONFORMS(
      matmul, Matmul,
      cat(p.m, " x ", p.n, " x ", p.k, " ta ", p.transpose_a, " tb ", p.transpose_b, " epilogue ", int(p.epilogue),
          " adds ", p.adds, " c ", p.c, " bias_grad ", p.bias_grad, p.with_bias_grad),
      t, [&](Arguments& a) { return arguments(a, p); },
      [&](const Values& in, const Values& exact) { return bounds(p, in, exact); });
}

}  // namespace

TEST_CASE("matmul: every epilogue agrees with the reference") {
  // 33 x 65 x 801 and 9 x 5 x 2053 take several blocks of depth, and a split sum.
  const std::int64_t sizes[][3] = {{1, 1, 1},    {0, 3, 4},    {3, 0, 4},     {3, 4, 0},     {7, 13, 5},
                                   {31, 33, 32}, {33, 31, 67}, {197, 32, 31}, {33, 65, 801}, {9, 5, 2053},
                                   {65, 8, 16},  {257, 8, 8},  {1025, 8, 8}};
  const Epilogue all[] = {Epilogue::none, Epilogue::bias, Epilogue::bias_gelu, Epilogue::dgelu, Epilogue::bias_grad_a};
  std::size_t turn = 0;  // types and flags take turns, so that each meets each epilogue at some size
  for_each_activation([&](DType t) {
    for (const auto& s : sizes)
      for (const Epilogue e : all)
        for (int flags = 0; flags < 8; ++flags) {
          const bool ta = (flags & 1) != 0, tb = (flags & 2) != 0, adds = (flags & 4) != 0;
          if (e == Epilogue::bias_grad_a && !ta) continue;
          if ((s[2] > 500 || s[0] > 200) && turn++ % 5 != 0) continue;
          ++turn;
          const bool grad = e == Epilogue::bias_grad_a || (e == Epilogue::dgelu && turn % 3 != 0);
          conforms_product(t, {s[0], s[1], s[2], ta, tb, adds, e, turn % 2 ? GeluKind::erf : GeluKind::tanh,
                               turn % 7 < 3 ? DType::f32 : t, turn % 4 ? DType::f32 : DType::bf16, grad});
        }
  });
}

TEST_CASE("matmul: rows of whole 16-byte pieces, as tensor cores take them, agree with the reference") {
  // Shapes that only tensor cores take differently: a third of this program's time. Short tests meet every epilogue once a
  // size; a host, to which the largest is one more matrix, leaves that out then. (tests/gpu runs this under compute-sanitizer.)
  const char* const short_tests = std::getenv("EVERGRAD_SHORT_TESTS");
  const bool brief = short_tests != nullptr && *short_tests != '\0', host = device_under_test().device.is_host();
  // Several tiles with ragged edges, a split depth (1096), and, last, enough of c for the large tile.
  const std::int64_t sizes[][3] = {{8, 8, 8}, {72, 40, 40}, {136, 72, 1096}, {1096, 1096, 72}};
  const Epilogue all[] = {Epilogue::none, Epilogue::bias, Epilogue::bias_gelu, Epilogue::dgelu, Epilogue::bias_grad_a};
  std::vector<std::array<std::int64_t, 3>> chosen;
  for (const auto& s : sizes) chosen.push_back({s[0], s[1], s[2]});
  // Where a kernel is chosen by name, several of a warpgroup's tiles side by side, too, the last one ragged.
  if (kernel_choices(device_under_test().device).active()) chosen.push_back({136, 328, 200});
  for (const auto& s : chosen) {
    if (s[0] > 1000 && ((brief && host) || kernel_choices(device_under_test().device).active()))
      continue;  // its other tile is the small one
    for (int e = 0; e < 5; ++e)
      for (int flags = 0; flags < 8; ++flags) {
        const bool ta = (flags & 1) != 0, tb = (flags & 2) != 0, adds = (flags & 4) != 0;
        if (all[e] == Epilogue::bias_grad_a && !ta) continue;
        const bool once = brief || s[0] > 1000 || s[1] == 328;
        if (once && flags != (all[e] == Epilogue::bias_grad_a ? 1 : e)) continue;  // every form once
        const bool grad = all[e] == Epilogue::bias_grad_a || (all[e] == Epilogue::dgelu && flags % 3 != 0);
        conforms_product(DType::bf16, {s[0], s[1], s[2], ta, tb, adds, all[e], adds ? GeluKind::erf : GeluKind::tanh,
                                       adds ? DType::f32 : DType::bf16, tb ? DType::f32 : DType::bf16, grad});
      }
  }
}

TEST_CASE("matmul: leading axes of a and c count as rows") {
  for_each_activation([](DType t) {
    EVERGRAD_CONFORMS(
        matmul, Matmul, "tokens", t,
        [](Arguments& a) {
          Matmul m;
          m.a = a.x("a", {2, 5, 7}), m.b = a.x("b", {3, 7}), m.c = a.x_out("c", {2, 5, 3}), m.transpose_b = true;
          return m;
        },
        [](const Values& in, const Values& exact) {
          return bounds({10, 3, 7, false, true, false, Epilogue::none, GeluKind::erf, DType::f32, DType::f32, false},
                        in, exact);
        });
  });
}

TEST_CASE("matmul: integers that fit are multiplied and added exactly") {
  // Products and sums of small integers have no rounding error, whatever the order: any difference is a wrong index.
  for_each_activation([](DType t) {
    for (const std::int64_t k : {1, 31, 385, 2053})
      for (int flags = 0; flags < 4; ++flags)
        EVERGRAD_CONFORMS(
            matmul, Matmul, cat(k, " flags ", flags), t,
            [&](Arguments& a) {
              const bool ta = (flags & 1) != 0, tb = (flags & 2) != 0;
              Matmul m;
              m.a = a.x("a", ta ? Shape{k, 37} : Shape{37, k}, integers(-3, 3));
              m.b = a.x("b", tb ? Shape{67, k} : Shape{k, 67}, integers(-3, 3));
              m.c = a.out("c", DType::f32, {37, 67}), m.transpose_a = ta, m.transpose_b = tb;
              return m;
            },
            equal());
  });
}

}  // namespace eg::test
