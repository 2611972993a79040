// tests/optim/dense.h - what ARROW's step is by definition: linear algebra on the whole P x P matrix, without any of
// the identities that optim/ uses. And gradients to feed it.
#pragma once
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/rng.h"
#include "tests/optim/rig.h"

namespace eg::test {

/// The literal formula of the paper as a method: rate 1, no warm-up, nothing grafted.
inline std::string literal(const std::string& options) {
  return "arrow:paper:warmup=none:base=sgd:arrow-lr=1:blocks=all:" + options;
}

/// n normal numbers that fp32 holds; the same for the same arguments.
inline Values draw(int step, std::size_t n, std::uint32_t stream = 0) {
  const Key k = key(3, "test", "gradient", stream);
  Values g(n);
  for (std::size_t i = 0; i < n; ++i) g[i] = double(float(k.normal(std::uint64_t(step) * n + i)));
  return g;
}

inline double dot(const Values& a, const Values& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}
inline double length(const Values& a) { return std::sqrt(dot(a, a)); }
inline Values scaled(Values a, double factor) {
  for (double& x : a) x *= factor;
  return a;
}

/// x with a x = b, by Gaussian elimination with the largest pivot of the column.
inline Values eliminate(std::vector<Values> a, Values b) {
  const std::size_t n = b.size();
  for (std::size_t p = 0; p < n; ++p) {
    std::size_t best = p;
    for (std::size_t i = p + 1; i < n; ++i)
      if (std::abs(a[i][p]) > std::abs(a[best][p])) best = i;
    std::swap(a[p], a[best]), std::swap(b[p], b[best]);
    for (std::size_t i = 0; i < n; ++i) {
      if (i == p) continue;
      const double f = a[i][p] / a[p][p];
      for (std::size_t j = p; j < n; ++j) a[i][j] -= f * a[p][j];
      b[i] -= f * b[p];
    }
  }
  for (std::size_t i = 0; i < n; ++i) b[i] /= a[i][i];
  return b;
}

/// (alpha I + beta/D sum_k g_k g_k^T)^-1 v
inline Values dense(const std::vector<Values>& window, const Values& v, double alpha, double beta, double divisor) {
  const std::size_t n = v.size();
  std::vector<Values> m(n, Values(n, 0.0));
  for (std::size_t i = 0; i < n; ++i) {
    m[i][i] = alpha;
    for (const Values& g : window)
      for (std::size_t j = 0; j < n; ++j) m[i][j] += beta / divisor * g[i] * g[j];
  }
  return eliminate(m, v);
}

/// The published form: g/alpha - U (I + U^T U / alpha)^-1 U^T g / alpha^2 with U = sqrt(beta/D) G.
inline Values woodbury(const std::vector<Values>& window, const Values& g, double alpha, double beta, double divisor) {
  const std::size_t n = window.size();
  std::vector<Values> inner(n, Values(n, 0.0));
  Values right(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < n; ++j) inner[i][j] = beta / divisor * dot(window[i], window[j]) / alpha;
    inner[i][i] += 1.0;
    right[i] = std::sqrt(beta / divisor) * dot(window[i], g);
  }
  const Values y = eliminate(inner, right);
  Values u = scaled(g, 1.0 / alpha);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t k = 0; k < u.size(); ++k)
      u[k] -= std::sqrt(beta / divisor) * window[i][k] * y[i] / (alpha * alpha);
  return u;
}

/// Appends g and drops what no longer fits.
inline void push(std::vector<Values>& window, const Values& g, std::size_t capacity) {
  window.push_back(g);
  if (window.size() > capacity) window.erase(window.begin());
}

}  // namespace eg::test
