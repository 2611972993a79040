// tests/emulated/test_ladders.cpp - every rung of every ladder against the double-precision reference.
//
// Errors, with u the unit roundoff of fp32 and U that of bf16. Sums of k terms in fp32 are off by sum_error (tolerance.h),
// and the result is rounded to bf16: U of it. Attention's last rung rounds its weights to bf16 before the second product:
// U of every term.
#include <cmath>

#include "cuda/table.h"
#include "engine/rng.h"
#include "tests/emulated/arrays.h"
#include "tests/tolerance.h"

namespace eg::emulated_backend {
namespace {

using test::stored;
using test::sum_error;
const double kU = unit_roundoff(DType::bf16), ku = unit_roundoff(DType::f32);

/// Numbers that bf16 holds, on the device and for the reference.
struct Data {
  Data(const Shape& s, std::uint32_t which, double scale = 1.0) : shape(s) {
    const Key k = key(5, "test", "ladder", which);
    std::vector<bf16> narrow;
    for (std::int64_t i = 0; i < s.size(); ++i) {
      narrow.push_back(bf16(float(scale * k.normal(std::uint64_t(i)))));
      exact.push_back(double(float(narrow.back())));
    }
    array = std::make_unique<Array<bf16>>(narrow);
  }
  TensorView on_device() const { return {array->data(), DType::bf16, shape}; }
  TensorView on_reference() { return {exact.data(), DType::f64, shape}; }
  Shape shape;
  std::vector<double> exact;
  std::unique_ptr<Array<bf16>> array;
};

template <class T>
void check_close(const char* rung, const Array<T>& got, const std::vector<double>& want,
                 const std::vector<double>& bound) {
  const std::vector<T> have = got.values();
  CAPTURE(std::string(rung));
  REQUIRE(have.size() == want.size());
  double worst = 0.0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double excess = std::abs(double(float(have[i])) - want[i]) - bound[i];
    if (!(excess <= worst)) worst = excess, where = i;
  }
  CAPTURE(where);
  CHECK(worst == 0.0);
}

}  // namespace

TEST_CASE("ladder of the matrix product: every rung agrees with the reference") {
  const Restore restore;
  const std::int64_t sizes[][3] = {{1, 8, 8}, {31, 32, 32}, {33, 40, 104}, {65, 64, 72}, {197, 136, 64}};
  int order = 0;
  for (const auto& [m, n, k] : sizes) {
    Data a({m, k}, 1), b({k, n}, 2);
    std::vector<double> want(std::size_t(m * n)), bound(want.size(), 0.0);
    Matmul exact;
    exact.a = a.on_reference(), exact.b = b.on_reference(), exact.c = {want.data(), DType::f64, {m, n}};
    reference_table().matmul(exact, {});
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double terms = 0.0;
        for (std::int64_t l = 0; l < k; ++l)
          terms += std::abs(a.exact[std::size_t(i * k + l)] * b.exact[std::size_t(l * n + j)]);
        const auto at = std::size_t(i * n + j);
        bound[at] = sum_error(k, terms) + stored(want[at], DType::bf16);
      }
    for (const Rung<Matmul>& rung : device_ladders().matmul) {
      use_schedule(order++ % 4);
      const Array<bf16> c(want.size());
      Matmul args;
      args.a = a.on_device(), args.b = b.on_device(), args.c = {c.data(), DType::bf16, {m, n}};
      rung.run(args, {});
      check_close(rung.name, c, want, bound);
      CHECK(rung.asked(args) > 0.0);
    }
  }
}

TEST_CASE("ladder of attention: every rung agrees with the reference") {
  const Restore restore;
  const std::int64_t sizes[][4] = {{1, 1, 1, 16}, {2, 31, 2, 32}, {1, 33, 1, 64}, {2, 65, 3, 64}, {1, 197, 1, 128}};
  int order = 0;
  for (const auto& [images, tokens, heads, width] : sizes) {
    const Shape packed{images, tokens, 3, heads, width}, rows{images, heads, tokens};
    Data qkv(packed, 3);
    const Shape out_shape{images, tokens, heads, width};
    std::vector<double> want(std::size_t(out_shape.size())), lse(std::size_t(rows.size())),
        map(lse.size() * std::size_t(tokens));
    AttentionFwd exact;
    exact.qkv = qkv.on_reference(), exact.out = {want.data(), DType::f64, out_shape};
    exact.lse = {lse.data(), DType::f64, rows}, exact.map = {map.data(), DType::f64, {images, heads, tokens, tokens}};
    exact.scale = 1.0 / std::sqrt(double(width));
    reference_table().attention_fwd(exact, {});
    // A score is off by e; so are its weight, relatively, and lse. The scaled-down sums add one rounding per key.
    std::vector<double> bound(want.size()), lse_bound(lse.size());
    for (std::int64_t b = 0; b < images; ++b)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < tokens; ++i) {
          const auto at = [&](std::int64_t t, int part, std::int64_t d) {
            return std::size_t((((b * tokens + t) * 3 + part) * heads + h) * width + d);
          };
          double e = 0.0;
          for (std::int64_t j = 0; j < tokens; ++j) {
            double terms = 0.0;
            for (std::int64_t d = 0; d < width; ++d) terms += std::abs(qkv.exact[at(i, 0, d)] * qkv.exact[at(j, 1, d)]);
            e = std::max(e, exact.scale * sum_error(width, terms) + 8.0 * ku);
          }
          const auto row = std::size_t((b * heads + h) * tokens + i);
          lse_bound[row] = e + sum_error(tokens, 2.0) + 4.0 * ku * std::abs(lse[row]);
          for (std::int64_t d = 0; d < width; ++d) {
            double terms = 0.0;
            for (std::int64_t j = 0; j < tokens; ++j)
              terms += map[row * std::size_t(tokens) + std::size_t(j)] * std::abs(qkv.exact[at(j, 2, d)]);
            const auto o = std::size_t(((b * tokens + i) * heads + h) * width + d);
            bound[o] = (2.0 * e + kU) * terms + 3.0 * sum_error(tokens, terms) + stored(want[o], DType::bf16);
          }
        }
    for (const Rung<AttentionFwd>& rung : device_ladders().attention) {
      use_schedule(order++ % 4);
      const Array<bf16> out(want.size());
      const Array<float> sums(lse.size());
      AttentionFwd args;
      args.qkv = qkv.on_device(), args.out = {out.data(), DType::bf16, out_shape};
      args.lse = {sums.data(), DType::f32, rows}, args.scale = exact.scale;
      rung.run(args, {});
      check_close(rung.name, out, want, bound);
      check_close(rung.name, sums, lse, lse_bound);
      CHECK(rung.asked(args) > 0.0);
    }
  }
}

TEST_CASE("ladder of layer norm: every rung agrees with the reference") {
  const Restore restore;
  const std::int64_t sizes[][2] = {{1, 8}, {31, 32}, {33, 104}, {65, 192}, {197, 1024}};
  int order = 0;
  for (const auto& [rows, columns] : sizes) {
    Data x({rows, columns}, 6, 2.0), gamma({columns}, 7), beta({columns}, 8);
    std::vector<double> want(std::size_t(rows * columns)), mean(static_cast<std::size_t>(rows)), rstd(mean.size());
    LayerNormFwd exact;
    exact.x = x.on_reference(), exact.gamma = gamma.on_reference(), exact.beta = beta.on_reference();
    exact.y = {want.data(), DType::f64, {rows, columns}};
    exact.mean = {mean.data(), DType::f64, {rows}}, exact.rstd = {rstd.data(), DType::f64, {rows}};
    reference_table().layer_norm_fwd(exact, {});
    std::vector<double> bound(want.size()), mean_bound(mean.size()), rstd_bound(mean.size());
    for (std::size_t r = 0; r < mean.size(); ++r) {
      double absolute = 0.0;
      for (std::size_t c = 0; c < std::size_t(columns); ++c)
        absolute += std::abs(x.exact[r * std::size_t(columns) + c]) / double(columns);
      mean_bound[r] = sum_error(columns, absolute);
      // The mean's error shifts all differences alike, which the variance feels in second order only.
      rstd_bound[r] =
          rstd[r] * (sum_error(columns, 1.0) + 8.0 * ku + mean_bound[r] * mean_bound[r] * rstd[r] * rstd[r]);
      for (std::size_t c = 0; c < std::size_t(columns); ++c) {
        const std::size_t at = r * std::size_t(columns) + c;
        const double g = std::abs(gamma.exact[c]), h = std::abs(x.exact[at] - mean[r]);
        bound[at] = g * (rstd[r] * mean_bound[r] + h * rstd_bound[r]) +
                    6.0 * ku * (g * h * rstd[r] + std::abs(beta.exact[c])) + stored(want[at], DType::bf16);
      }
    }
    for (const Rung<LayerNormFwd>& rung : device_ladders().layer_norm) {
      use_schedule(order++ % 4);
      const Array<bf16> y(want.size());
      const Array<float> m(mean.size()), s(mean.size());
      LayerNormFwd args;
      args.x = x.on_device(), args.gamma = gamma.on_device(), args.beta = beta.on_device();
      args.y = {y.data(), DType::bf16, {rows, columns}};
      args.mean = {m.data(), DType::f32, {rows}}, args.rstd = {s.data(), DType::f32, {rows}};
      rung.run(args, {});
      check_close(rung.name, y, want, bound);
      check_close(rung.name, m, mean, mean_bound);
      check_close(rung.name, s, rstd, rstd_bound);
      CHECK(rung.asked(args) > 0.0);
    }
  }
}

TEST_CASE("ceilings: every operation that is counted is done") {
  const Restore restore;
  const Array<float> got(2 * 128);
  const TensorView out{got.data(), DType::f32, {2 * 128}};
  // 2 blocks of 4 warps, 8 products a round, 16 x 8 x 16 multiply-adds each: every one adds 16 to four sums a thread.
  CHECK(device_ladders().arithmetic(out, DType::bf16, 3, {}) == 2.0 * 4 * 3 * 8 * (2 * 16 * 8 * 16));
  for (const float x : got.values()) CHECK(x == 3 * 8 * 4 * 16.0f);
  // 256 threads, 16 chains: x becomes (x + 1) / 2; from 0 to 15 that gives (sum 120 + 16) / 2, then (68 + 16) / 2.
  CHECK(device_ladders().arithmetic(out, DType::f32, 2, {}) == 256.0 * 16 * 2 * 2);
  for (const float x : got.values()) CHECK(x == 42.0f);
}

TEST_CASE("ceilings: what cannot be measured is refused with what can") {
  const Array<float> got(130);
  const auto ask = [&](std::int64_t n, DType dtype, int rounds) {
    return error_of([&] { device_ladders().arithmetic({got.data(), DType::f32, {n}}, dtype, rounds, {}); });
  };
  CHECK(has(ask(130, DType::bf16, 1), "a multiple of 128"));
  CHECK(has(ask(128, DType::u8, 1), "bf16 or f32"));
  CHECK(has(ask(128, DType::f32, 0), "0 rounds"));
}

TEST_CASE("ladders: inputs that a rung does not take are refused with what it takes") {
  Data a({4, 9}, 1), b({9, 8}, 2);
  const Array<bf16> c(32);
  Matmul args;
  args.a = a.on_device(), args.b = b.on_device(), args.c = {c.data(), DType::bf16, {4, 8}};
  for (const Rung<Matmul>& rung : device_ladders().matmul)
    CHECK(has(error_of([&] { rung.run(args, {}); }), "multiples of 8"));
}

}  // namespace eg::emulated_backend
