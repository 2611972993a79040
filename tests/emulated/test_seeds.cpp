// tests/emulated/test_seeds.cpp - kernels give the same bits in twenty orders of their threads and blocks, with one, two
// and three workers: what shares memory between threads (attention, matrix products) and what several blocks sum (the
// gradients of a layer norm, a split matrix product).
#include <algorithm>
#include <cmath>

#include "cuda/table.h"
#include "tests/emulated/arrays.h"

namespace eg::emulated_backend {
namespace {

#if defined(EVERGRAD_VARIANT_RACE)
constexpr int kSeeds = 3;  // one worker at all times, and it looks at orders that did not happen, too
#else
constexpr int kSeeds = 20;
#endif

template <class T>
std::vector<T> numbers(std::int64_t n, float size) {
  std::vector<T> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = T(size * (float(i * 2654435761u % 1009u) / 504.0f - 1.0f));
  return v;
}

template <class T>
void append(std::string& bits, const Array<T>& a) {
  const auto v = a.values();
  // What nobody has written yet is NaN, and may be so in every order.
  CHECK(std::all_of(v.begin(), v.end(), [](T x) { return std::isfinite(float(x)); }));
  bits.append(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T));
}

/// Calls `run` in round-robin order and in kSeeds others; all must leave the same bits.
template <class F>
void same_bits(const F& run) {
  const Restore restore;
  use_schedule(0);
  const std::string first = run();
  CHECK(first.find_first_not_of('\0') != std::string::npos);
  for (int seed = 1; seed <= kSeeds; ++seed) {
    use_schedule(seed);
    CAPTURE(seed);
    CHECK(run() == first);
  }
}

}  // namespace

TEST_CASE("seeds: attention, forward and backward, has the same bits in every order") {
  const std::int64_t images = 12, tokens = 33, heads = 2, width = 32;  // blocks enough for three workers
  const Shape packed{images, tokens, 3, heads, width}, rows{images, heads, tokens}, shape{images, tokens, heads, width};
  const Array<bf16> qkv(numbers<bf16>(packed.size(), 1.0f)), dout(numbers<bf16>(shape.size(), 0.5f));
  same_bits([&] {
    const Array<bf16> out(std::size_t(shape.size())), dqkv(std::size_t(packed.size()));
    const Array<float> lse(std::size_t(rows.size()));
    AttentionFwd f;
    f.qkv = {qkv.data(), DType::bf16, packed}, f.out = {out.data(), DType::bf16, shape};
    f.lse = {lse.data(), DType::f32, rows}, f.scale = 0.25;
    kernel_table().attention_fwd(f, {});
    AttentionBwd b;
    b.qkv = f.qkv, b.out = f.out, b.lse = f.lse, b.dout = {dout.data(), DType::bf16, shape};
    b.dqkv = {dqkv.data(), DType::bf16, packed}, b.scale = 0.25;
    kernel_table().attention_bwd(b, {});
    std::string bits;
    append(bits, out), append(bits, lse), append(bits, dqkv);
    return bits;
  });
}

TEST_CASE("seeds: layer norm, forward and backward, has the same bits in every order") {
  const std::int64_t rows = 197, width = 96;
  const Shape shape{rows, width}, row{width}, statistic{rows};
  const Array<float> x(numbers<float>(rows * width, 3.0f)), dy(numbers<float>(rows * width, 1.0f)),
      gamma(numbers<float>(width, 1.5f)), beta(numbers<float>(width, 0.5f));
  same_bits([&] {
    const Array<float> y(x.bytes() / 4), dx(x.bytes() / 4), dgamma(gamma.bytes() / 4), dbeta(gamma.bytes() / 4),
        mean(static_cast<std::size_t>(rows)), rstd(static_cast<std::size_t>(rows));
    LayerNormFwd f;
    f.x = {x.data(), DType::f32, shape}, f.y = {y.data(), DType::f32, shape};
    f.gamma = {gamma.data(), DType::f32, row}, f.beta = {beta.data(), DType::f32, row};
    f.mean = {mean.data(), DType::f32, statistic}, f.rstd = {rstd.data(), DType::f32, statistic};
    kernel_table().layer_norm_fwd(f, {});
    LayerNormBwd b;
    b.dy = {dy.data(), DType::f32, shape}, b.x = f.x, b.gamma = f.gamma, b.mean = f.mean, b.rstd = f.rstd;
    b.dx = {dx.data(), DType::f32, shape};
    b.dgamma = {dgamma.data(), DType::f32, row}, b.dbeta = {dbeta.data(), DType::f32, row};
    kernel_table().layer_norm_bwd(b, {});
    std::string bits;
    append(bits, y), append(bits, dx), append(bits, dgamma), append(bits, dbeta);
    return bits;
  });
}

TEST_CASE("seeds: a matrix product whose blocks share the sum has the same bits in every order") {
  const std::int64_t m = 64, n = 64, k = 2048;
  const Array<bf16> a(numbers<bf16>(k * m, 1.0f)), b(numbers<bf16>(k * n, 1.0f));
  same_bits([&] {
    const Array<float> c(std::size_t(m * n));
    Matmul p;
    p.a = {a.data(), DType::bf16, {k, m}}, p.b = {b.data(), DType::bf16, {k, n}};
    p.c = {c.data(), DType::f32, {m, n}}, p.transpose_a = true;
    kernel_table().matmul(p, {});
    std::string bits;
    append(bits, c);
    return bits;
  });
}

}  // namespace eg::emulated_backend
