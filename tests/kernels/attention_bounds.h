// tests/kernels/attention_bounds.h - how far the results of attention may be off.
//
// Error of a probability. A score S = scale q.k is off by e_S = sum_error(D + 1, scale sum |q k|); the kernel takes e
// to the power S - c (c the row's largest score, or lse in backward), whose rounding costs u (|S| + |c| + |S - c|), and
// e^x has its own error. So e^(S - c) is off by the share eta = e_S + u (|S| + |c| + |S - c|) + exp_error(), and in
// forward dividing by the sum of N such terms doubles the largest eta of the row and adds 4 sqrt(N) u.
#pragma once
#include <cmath>
#include <utility>
#include <vector>

#include "tests/kernels/conform.h"

namespace eg::test::attention {

using Vector = std::vector<double>;
inline const double u = unit_roundoff(DType::f32);

struct Problem {
  Shape qkv;  // [B,N,3,H,D]
  double scale = 1.0;
  std::int64_t B() const { return qkv[0]; }
  std::int64_t N() const { return qkv[1]; }
  std::int64_t H() const { return qkv[3]; }
  std::int64_t D() const { return qkv[4]; }
  Shape out() const { return {B(), N(), H(), D()}; }
  Shape rows() const { return {B(), H(), N()}; }
  /// First element of part 0, 1, 2 (q, k, v) of a token, in qkv; and of its result, in out.
  std::size_t at(std::int64_t b, std::int64_t h, std::int64_t token, std::int64_t part) const {
    return std::size_t((((b * N() + token) * 3 + part) * H() + h) * D());
  }
  std::size_t out_at(std::int64_t b, std::int64_t h, std::int64_t token) const {
    return std::size_t(((b * N() + token) * H() + h) * D());
  }
  std::size_t row(std::int64_t b, std::int64_t h, std::int64_t token) const {
    return std::size_t((b * H() + h) * N() + token);
  }
};

/// Type that probabilities and dS are rounded to before the products that they enter: tensor cores take bf16.
inline DType factor_type(DType activation) { return device_under_test().device == kCpu ? DType::f32 : activation; }

struct Dot {
  double value = 0.0, absolute = 0.0;
};
inline Dot dot(const Vector& a, std::size_t a0, const Vector& b, std::size_t b0, std::int64_t n) {
  Dot d;
  for (std::size_t i = 0; i < std::size_t(n); ++i) {
    const double term = a[a0 + i] * b[b0 + i];
    d.value += term, d.absolute += std::abs(term);
  }
  return d;
}

/// Scores of one query, and their errors.
struct Scores {
  Vector s, error;
  double largest = -HUGE_VAL;
};
inline Scores scores_of(const Problem& p, const Vector& qkv, std::int64_t b, std::int64_t h, std::int64_t query) {
  Scores all;
  for (std::int64_t j = 0; j < p.N(); ++j) {
    const Dot d = dot(qkv, p.at(b, h, query, 0), qkv, p.at(b, h, j, 1), p.D());
    all.s.push_back(p.scale * d.value);
    all.error.push_back(sum_error(p.D() + 1, p.scale * d.absolute));
    all.largest = std::max(all.largest, all.s.back());
  }
  return all;
}
inline double power_error(double s, double s_error, double shift) {
  return s_error + u * (std::abs(s) + std::abs(shift) + std::abs(s - shift)) + exp_error();
}

/// Calls f(image, head, query).
template <class F>
void for_each_query(const Problem& p, const F& f) {
  for (std::int64_t b = 0; b < p.B(); ++b)
    for (std::int64_t h = 0; h < p.H(); ++h)
      for (std::int64_t i = 0; i < p.N(); ++i) f(b, h, i);
}

inline Values forward_bounds(const Problem& p, DType t, bool with_entropy, bool with_map, const Values& in) {
  const Vector& qkv = in.at("qkv");
  const auto rows = std::size_t(p.rows().size());
  Values bounds{{"out", Vector(std::size_t(p.out().size()))}, {"lse", Vector(rows)}};
  if (with_entropy) bounds["entropy"].resize(rows);
  if (with_map) bounds["map"].resize(rows * std::size_t(p.N()));
  const double sum_share = sum_error(p.N(), 1.0);
  for_each_query(p, [&](std::int64_t b, std::int64_t h, std::int64_t query) {
    const Scores all = scores_of(p, qkv, b, h, query);
    double eta = 0.0, sum = 0.0;
    for (std::size_t j = 0; j < all.s.size(); ++j) {
      eta = std::max(eta, power_error(all.s[j], all.error[j], all.largest));
      sum += std::exp(all.s[j] - all.largest);
    }
    const double log_sum = std::log(sum), lse = all.largest + log_sum, share = 2.0 * eta + sum_share + 3.0 * u;
    double entropy = 0.0, entropy_error = 0.0, terms = 0.0;
    Vector absolute(std::size_t(p.D()), 0.0), squares(absolute);
    for (std::size_t j = 0; j < all.s.size(); ++j) {
      const double q = std::exp(all.s[j] - lse);
      entropy += q * (lse - all.s[j]), terms += q * (all.largest - all.s[j]);
      if (with_map) bounds["map"][p.row(b, h, query) * all.s.size() + j] = q * share;
      for (std::size_t d = 0; d < absolute.size(); ++d) {
        const double term = q * qkv[p.at(b, h, std::int64_t(j), 2) + d];
        absolute[d] += std::abs(term), squares[d] += term * term;
      }
    }
    // The entropy moves by sum q (|log q| + entropy) eta when the scores do. It is log sum - weighted / sum, and a
    // relative error of the sum is an absolute one of its logarithm.
    entropy_error = 2.0 * entropy * eta + sum_share * (1.0 + terms) + 3.0 * u * (log_sum + terms);
    bounds["lse"][p.row(b, h, query)] = eta + sum_share + 2.0 * u * (std::abs(all.largest) + log_sum);
    if (with_entropy) bounds["entropy"][p.row(b, h, query)] = entropy_error;
    for (std::size_t d = 0; d < absolute.size(); ++d)
      bounds["out"][p.out_at(b, h, query) + d] =
          share * absolute[d] + sum_error(p.N(), absolute[d]) + rounded_factor_error(squares[d], factor_type(t));
  });
  return bounds;
}

/// What a forward pass leaves for backward: out and lse.
inline std::pair<Vector, Vector> forward_results(const Problem& p, const Vector& qkv) {
  Vector out(std::size_t(p.out().size())), lse(std::size_t(p.rows().size()));
  for_each_query(p, [&](std::int64_t b, std::int64_t h, std::int64_t query) {
    const Scores all = scores_of(p, qkv, b, h, query);
    double sum = 0.0;
    for (const double s : all.s) sum += std::exp(s - all.largest);
    lse[p.row(b, h, query)] = all.largest + std::log(sum);
    for (std::size_t j = 0; j < all.s.size(); ++j) {
      const double share = std::exp(all.s[j] - all.largest) / sum;
      for (std::size_t d = 0; d < std::size_t(p.D()); ++d)
        out[p.out_at(b, h, query) + d] += share * qkv[p.at(b, h, std::int64_t(j), 2) + d];
    }
  });
  return {out, lse};
}

/// dP and delta are sums of D terms; dS = scale P (dP - delta); dQ, dK and dV are sums of N terms whose factors P and
/// dS are already off.
inline Values backward_bounds(const Problem& p, DType t, bool adds, const Values& in, const Values& exact) {
  const Vector &qkv = in.at("qkv"), &out = in.at("out"), &dout = in.at("dout");
  Vector bound(qkv.size(), 0.0), absolute(bound), squares(bound);
  const auto term = [&](std::size_t to, double factor, double error, double other) {
    bound[to] += error * std::abs(other), absolute[to] += std::abs(factor * other);
    squares[to] += factor * other * factor * other;
  };
  for_each_query(p, [&](std::int64_t b, std::int64_t h, std::int64_t i) {
    const Scores all = scores_of(p, qkv, b, h, i);
    const double lse = in.at("lse")[p.row(b, h, i)];
    const Dot delta = dot(dout, p.out_at(b, h, i), out, p.out_at(b, h, i), p.D());
    for (std::int64_t j = 0; j < p.N(); ++j) {
      const double s = all.s[std::size_t(j)], q = std::exp(s - lse);
      const double q_error = q * power_error(s, all.error[std::size_t(j)], lse);
      const Dot dp = dot(dout, p.out_at(b, h, i), qkv, p.at(b, h, j, 2), p.D());
      const double inner_error =
          sum_error(p.D(), dp.absolute + delta.absolute) + u * (std::abs(dp.value) + std::abs(delta.value));
      const double ds = p.scale * q * (dp.value - delta.value);
      const double ds_error =
          p.scale * (q_error * std::abs(dp.value - delta.value) + q * inner_error) + 3.0 * u * std::abs(ds);
      for (std::size_t d = 0; d < std::size_t(p.D()); ++d) {
        term(p.at(b, h, i, 0) + d, ds, ds_error, qkv[p.at(b, h, j, 1) + d]);
        term(p.at(b, h, j, 1) + d, ds, ds_error, qkv[p.at(b, h, i, 0) + d]);
        term(p.at(b, h, j, 2) + d, q, q_error, dout[p.out_at(b, h, i) + d]);
      }
    }
  });
  for (std::size_t i = 0; i < bound.size(); ++i)
    bound[i] += sum_error(p.N(), absolute[i]) + rounded_factor_error(squares[i], factor_type(t)) +
                elementwise_error(adds ? in.at("dqkv")[i] : 0.0, exact.at("dqkv")[i]);
  return {{"dqkv", bound}};
}

}  // namespace eg::test::attention
