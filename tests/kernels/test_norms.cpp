// tests/kernels/test_norms.cpp - layer norm, alone and of q and k.
#include "tests/kernels/conform.h"
#include "tests/kernels/norm_bounds.h"

namespace eg::test {
namespace {

const Covers covers{"layer_norm_fwd", "layer_norm_bwd", "qk_norm_fwd", "qk_norm_bwd"};

// One channel has no variance: eps alone decides.
const std::vector<Shape> kRows{{33, 384},  {0, 8},  {1, 1},   {3, 1},   {5, 3},    {7, 31},   {2, 32},   {4, 33},
                               {2, 3, 64}, {33, 5}, {65, 24}, {257, 3}, {197, 61}, {331, 67}, {1025, 8}, {1025, 1}};
/// Widths of ViT-B and L (S is above), and both sides of 1024 and 2048: a GPU's kernels spread a row over a warp in 2, 3
/// and 4 pieces per lane, then over a block, and take what is not a multiple of 8, or wider, element by element.
const std::vector<Shape> kWide{{9, 768}, {5, 1024}, {3, 1031}, {3, 1032}, {2, 2048}, {2, 2056}};
/// More rows than an H100 works on at once (660 blocks of four): a warp of the backward pass takes a second one.
const Shape kMany{2657, 8};
std::vector<Shape> rows_to_normalize() {
  std::vector<Shape> all = kRows;
  if (device_under_test().device == kCpu) return all;
  all.insert(all.end(), kWide.begin(), kWide.end());
  all.push_back(kMany);
  return all;
}

using Vector = std::vector<double>;

/// The second moments that a forward pass would have stored, on the host.
struct Statistics {
  Vector mean, rstd;
};
Statistics statistics_of(const Vector& x, std::int64_t width, double eps) {
  Statistics s;
  for (std::size_t first = 0; first < x.size(); first += std::size_t(width)) {
    const Vector ones(std::size_t(width), 1.0);
    const NormForward f = norm_forward(x.data() + first, ones, ones, eps);
    s.mean.push_back(f.mean), s.rstd.push_back(f.rstd);
  }
  return s;
}
Draw values_of(const Vector& v) {
  return [v](const Key&, std::int64_t i) { return v[std::size_t(i)]; };
}

}  // namespace

TEST_CASE("layer_norm: forward agrees with the reference, with and without the residual sum") {
  for_each_activation([](DType t) {
    for (const Shape& shape : rows_to_normalize())
      for (const bool residual : {false, true})
        for (const double offset : {0.0, 30.0}) {
          if (shape.size() > 1000 && residual != (offset > 0.0)) continue;
          EVERGRAD_CONFORMS(
              layer_norm_fwd, LayerNormFwd, cat(shape, " residual ", residual, " offset ", offset), t,
              [&](Arguments& a) {
                LayerNormFwd f;
                f.x = a.x("x", shape, normal(1.0, offset));
                if (residual) f.residual = a.x("residual", shape);
                // Backward normalises the stored sum again, so its statistics are what counts.
                if (residual) f.sum = a.rounded_out("sum", t, shape);
                f.gamma = a.x("gamma", {shape.cols()}), f.beta = a.x("beta", {shape.cols()});
                f.y = a.x_out("y", shape);
                f.mean = a.out("mean", DType::f32, {shape.rows()});
                f.rstd = a.out("rstd", DType::f32, {shape.rows()});
                return f;
              },
              [&](const Values& in, const Values& exact) {
                Values bounds{{"y", {}}, {"mean", {}}, {"rstd", {}}};
                const Vector& s = residual ? exact.at("sum") : in.at("x");
                for (std::size_t first = 0; first < s.size(); first += std::size_t(shape.cols())) {
                  const NormForward f = norm_forward(s.data() + first, in.at("gamma"), in.at("beta"), 1e-6);
                  bounds["mean"].push_back(f.mean_error), bounds["rstd"].push_back(f.rstd_error);
                  bounds["y"].insert(bounds["y"].end(), f.y_error.begin(), f.y_error.end());
                }
                return bounds;
              });
        }
  });
}

namespace {

struct NormGradient {
  Shape shape;
  bool dsum, adds, adds_params, dgamma, dbeta;
};

LayerNormBwd arguments(Arguments& a, const NormGradient& c) {
  LayerNormBwd b;
  b.dy = a.x("dy", c.shape);
  if (c.dsum) b.dsum = a.x("dsum", c.shape);
  b.x = a.x("x", c.shape, normal(2.0, 0.5)), b.gamma = a.x("gamma", {c.shape.cols()});
  const Statistics s = statistics_of(a.values().at("x"), c.shape.cols(), 1e-6);
  b.mean = a.stat("mean", {c.shape.rows()}, values_of(s.mean));
  b.rstd = a.stat("rstd", {c.shape.rows()}, values_of(s.rstd));
  b.dx = a.x_out("dx", c.shape, c.adds);
  if (c.dgamma) b.dgamma = a.out("dgamma", DType::f32, {c.shape.cols()}, c.adds_params);
  if (c.dbeta) b.dbeta = a.out("dbeta", c.adds ? a.activation() : DType::f32, {c.shape.cols()}, c.adds_params);
  b.accumulate = c.adds, b.accumulate_params = c.adds_params;
  return b;
}

Values bounds_of(const NormGradient& c, const Values& in, const Values& exact) {
  const std::size_t C = std::size_t(c.shape.cols());
  Vector dgamma(C, 0.0), dbeta(C, 0.0);
  Values bounds{{"dx", {}}};
  const Vector &x = in.at("x"), &dx = exact.at("dx");
  for (std::size_t row = 0; row < x.size() / C; ++row) {
    const Vector e = norm_backward(x.data() + row * C, in.at("dy").data() + row * C, in.at("gamma"), in.at("mean")[row],
                                   in.at("rstd")[row], dgamma.data(), dbeta.data());
    for (std::size_t i = 0; i < C; ++i) {
      const std::size_t at = row * C + i;
      const double others =
          std::max(c.dsum ? std::abs(in.at("dsum")[at]) : 0.0, c.adds ? std::abs(in.at("dx")[at]) : 0.0);
      bounds["dx"].push_back(e[i] + elementwise_error(others, dx[at]));
    }
  }
  for (std::size_t i = 0; i < C; ++i) {
    const auto before = [&](const char* name) { return c.adds_params ? in.at(name)[i] : 0.0; };
    if (c.dgamma) bounds["dgamma"].push_back(dgamma_error(c.shape.rows(), dgamma[i], before("dgamma")));
    if (c.dbeta) bounds["dbeta"].push_back(sum_error(c.shape.rows() + 1, dbeta[i] + std::abs(before("dbeta"))));
  }
  return bounds;
}

}  // namespace

TEST_CASE("layer_norm: backward agrees with the reference for every set of options") {
  for_each_activation([](DType t) {
    for (const Shape& shape : rows_to_normalize())
      for (int options = 0; options < 32; ++options) {
        const auto on = [&](int bit) { return (options >> bit & 1) != 0; };
        const NormGradient c{shape, on(0), on(1), on(2), on(3), on(4)};
        if (shape.size() > 1000 && options % 5 != 1) continue;
        if (shape.size() > 5000 && options % 15 != 1) continue;
        if (shape == kMany && options != 31) continue;
        EVERGRAD_CONFORMS(
            layer_norm_bwd, LayerNormBwd, cat(shape, " options ", options), t,
            [&](Arguments& a) { return arguments(a, c); },
            [&](const Values& in, const Values& exact) { return bounds_of(c, in, exact); });
      }
  });
}

// ---- q and k ------------------------------------------------------------------------------------------------------

namespace {

// [B,N,3,H,D]
const std::vector<Shape> kHeads{{0, 2, 3, 2, 8},
                                {1, 1, 3, 1, 1},
                                {1, 5, 3, 2, 7},
                                {2, 7, 3, 3, 16},
                                {1, 3, 3, 1, 33},
                                {3, 31, 3, 2, 32},
                                {1, 67, 3, 5, 17},
                                // More lanes per vector, up to a warp; wider than one.
                                {1, 33, 3, 1, 64},
                                {1, 5, 3, 1, 256},
                                {1, 2, 3, 1, 264},
                                {1, 65, 3, 1, 8},
                                {1, 257, 3, 1, 8},
                                {1, 1025, 3, 1, 8},
                                {1, 1025, 3, 1, 3}};

/// For every vector of D numbers of qkv: 0 q, 1 k, 2 v; and the number of its statistics.
struct Vectors {
  std::int64_t H, D, count;
  explicit Vectors(const Shape& s) : H(s[3]), D(s[4]), count(s.size() / s[4]) {}
  std::int64_t part(std::int64_t vector) const { return vector / H % 3; }
  std::size_t statistic(std::int64_t vector) const {
    return std::size_t((vector / (3 * H) * 2 + part(vector)) * H + vector % H);
  }
};

const char* const kGamma[] = {"gamma_q", "gamma_k"};
const char* const kBeta[] = {"beta_q", "beta_k"};
const char* const kDgamma[] = {"dgamma_q", "dgamma_k"};
const char* const kDbeta[] = {"dbeta_q", "dbeta_k"};

Values qk_forward_bounds(const Shape& shape, double eps, const char* out, const Values& in) {
  const Vectors v(shape);
  Values bounds{{out, {}}, {"mean", Vector(std::size_t(v.count / 3 * 2))}};
  bounds["rstd"] = bounds["mean"];
  for (std::int64_t i = 0; i < v.count; ++i) {
    const double* const x = in.at("qkv").data() + i * v.D;
    if (v.part(i) == 2) {
      bounds[out].insert(bounds[out].end(), std::size_t(v.D), 0.0);
      continue;
    }
    const NormForward f = norm_forward(x, in.at(kGamma[v.part(i)]), in.at(kBeta[v.part(i)]), eps);
    bounds["mean"][v.statistic(i)] = f.mean_error, bounds["rstd"][v.statistic(i)] = f.rstd_error;
    bounds[out].insert(bounds[out].end(), f.y_error.begin(), f.y_error.end());
  }
  return bounds;
}

}  // namespace

TEST_CASE("qk_norm: forward agrees with the reference, also in place") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kHeads)
      for (const bool in_place : {false, true}) {
        const double eps = in_place ? 0.3 : 1e-6;
        EVERGRAD_CONFORMS(
            qk_norm_fwd, QkNormFwd, cat(shape, " in place ", in_place), t,
            [&](Arguments& a) {
              QkNormFwd f;
              const Shape width{shape[4]}, statistics{shape[0], shape[1], 2, shape[3]};
              f.qkv = a.x("qkv", shape, normal(1.5, 0.4), in_place ? Use::added : Use::input);
              f.gamma_q = a.x("gamma_q", width), f.beta_q = a.x("beta_q", width);
              f.gamma_k = a.x("gamma_k", width), f.beta_k = a.x("beta_k", width);
              f.out = in_place ? f.qkv : a.x_out("out", shape);
              f.mean = a.out("mean", DType::f32, statistics), f.rstd = a.out("rstd", DType::f32, statistics);
              f.eps = eps;
              return f;
            },
            [&](const Values& in, const Values&) {
              return qk_forward_bounds(shape, eps, in_place ? "qkv" : "out", in);
            });
      }
  });
}

TEST_CASE("qk_norm: backward agrees with the reference for every set of options") {
  for_each_activation([](DType t) {
    for (const Shape& shape : kHeads)
      for (int options = 0; options < 8; ++options) {
        if (shape.size() > 5000 && options % 3 != 1) continue;
        const bool adds = (options & 1) != 0, adds_params = (options & 2) != 0, params = (options & 4) != 0;
        const Vectors v(shape);
        EVERGRAD_CONFORMS(
            qk_norm_bwd, QkNormBwd, cat(shape, " options ", options), t,
            [&](Arguments& a) {
              QkNormBwd b;
              const Shape width{shape[4]}, statistics{shape[0], shape[1], 2, shape[3]};
              b.qkv = a.x("qkv", shape, normal(1.5, 0.4));
              b.gamma_q = a.x("gamma_q", width), b.gamma_k = a.x("gamma_k", width);
              const Statistics all = statistics_of(a.values().at("qkv"), shape[4], 1e-6);
              Vector mean(std::size_t(statistics.size())), rstd(mean);
              for (std::int64_t i = 0; i < v.count; ++i)
                if (v.part(i) < 2)
                  mean[v.statistic(i)] = all.mean[std::size_t(i)], rstd[v.statistic(i)] = all.rstd[std::size_t(i)];
              b.mean = a.stat("mean", statistics, values_of(mean)),
              b.rstd = a.stat("rstd", statistics, values_of(rstd));
              b.dout = a.x("dout", shape), b.dqkv = a.x_out("dqkv", shape, adds);
              if (params) b.dgamma_q = a.out("dgamma_q", DType::f32, width, adds_params);
              if (params) b.dbeta_k = a.out("dbeta_k", DType::f32, width, adds_params);
              b.dbeta_q = a.out("dbeta_q", t, width, adds_params);
              b.dgamma_k = a.out("dgamma_k", t, width, adds_params);
              b.accumulate = adds, b.accumulate_params = adds_params;
              return b;
            },
            [&](const Values& in, const Values& exact) {
              Values bounds{{"dqkv", {}}};
              Vector dgamma[2] = {Vector(std::size_t(v.D), 0.0), Vector(std::size_t(v.D), 0.0)},
                     dbeta[2] = {dgamma[0], dgamma[0]};
              for (std::int64_t i = 0; i < v.count; ++i) {
                Vector e(std::size_t(v.D), 0.0);
                if (v.part(i) < 2)
                  e = norm_backward(in.at("qkv").data() + i * v.D, in.at("dout").data() + i * v.D,
                                    in.at(kGamma[v.part(i)]), in.at("mean")[v.statistic(i)],
                                    in.at("rstd")[v.statistic(i)], dgamma[v.part(i)].data(), dbeta[v.part(i)].data());
                for (std::int64_t d = 0; d < v.D; ++d) {
                  const auto at = std::size_t(i * v.D + d);
                  bounds["dqkv"].push_back(e[std::size_t(d)] +
                                           elementwise_error(adds ? in.at("dqkv")[at] : 0.0, exact.at("dqkv")[at]));
                }
              }
              for (int part = 0; part < 2; ++part)
                for (std::size_t d = 0; d < std::size_t(v.D); ++d) {
                  const auto add = [&](const char* name, double absolute) {
                    if (exact.contains(name))
                      bounds[name].push_back(dgamma_error(v.count / 3, absolute, adds_params ? in.at(name)[d] : 0.0));
                  };
                  add(kDgamma[part], dgamma[part][d]), add(kDbeta[part], dbeta[part][d]);
                }
              return bounds;
            });
      }
  });
}

}  // namespace eg::test
