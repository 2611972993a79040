// apps/diagnosis/linear_probe.cpp - see linear_probe.h.
#include "apps/diagnosis/linear_probe.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace eg {
namespace {

void check_features(const LabelledFeatures& f, const char* which, std::int64_t width, int classes) {
  check(!f.labels.empty(), Kind::usage, [&] { return cat("ridge_accuracy: no image to ", which, " with"); });
  check(width > 0 && f.x.size() == f.labels.size() * std::size_t(width), Kind::shape, [&] {
    return cat("ridge_accuracy: ", f.x.size(), " numbers are not ", f.labels.size(), " features of width ", width);
  });
  for (const std::int32_t l : f.labels)
    check(l >= 0 && l < classes, Kind::usage,
          [&] { return cat("ridge_accuracy: label ", l, " is outside 0..", classes - 1); });
  for (const double v : f.x)
    check(std::isfinite(v), Kind::numeric, [] { return std::string("ridge_accuracy: a feature is not finite"); });
}

/// Solves a w = b for a positive definite a [n, n] and b [n, m], in place: a becomes its Cholesky factor, b becomes w.
void solve(std::vector<double>& a, std::vector<double>& b, std::size_t n, std::size_t m) {
  for (std::size_t j = 0; j < n; ++j)
    for (std::size_t i = j; i < n; ++i) {
      double sum = a[i * n + j];
      for (std::size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t c = 0; c < m; ++c) {
      for (std::size_t k = 0; k < i; ++k) b[i * m + c] -= a[i * n + k] * b[k * m + c];
      b[i * m + c] /= a[i * n + i];
    }
  for (std::size_t i = n; i-- > 0;)
    for (std::size_t c = 0; c < m; ++c) {
      for (std::size_t k = i + 1; k < n; ++k) b[i * m + c] -= a[k * n + i] * b[k * m + c];
      b[i * m + c] /= a[i * n + i];
    }
}

}  // namespace

double ridge_accuracy(const LabelledFeatures& train, const LabelledFeatures& test, std::int64_t width, int classes,
                      double strength) {
  check_features(train, "train", width, classes);
  check_features(test, "test", width, classes);
  const auto n = train.labels.size(), d = std::size_t(width), k = std::size_t(classes);
  std::vector<double> mean(d, 0.0), share(k, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t c = 0; c < d; ++c) mean[c] += train.x[i * d + c] / double(n);
    share[std::size_t(train.labels[i])] += 1.0 / double(n);
  }
  std::vector<double> gram(d * d, 0.0), w(d * k, 0.0), row(d);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t c = 0; c < d; ++c) row[c] = train.x[i * d + c] - mean[c];
    for (std::size_t a = 0; a < d; ++a) {
      for (std::size_t b = 0; b <= a; ++b) gram[a * d + b] += row[a] * row[b];
      for (std::size_t c = 0; c < k; ++c)
        w[a * k + c] += row[a] * ((std::size_t(train.labels[i]) == c ? 1.0 : 0.0) - share[c]);
    }
  }
  double trace = 0.0;
  for (std::size_t a = 0; a < d; ++a) trace += gram[a * d + a];
  if (trace > 0.0) {
    for (std::size_t a = 0; a < d; ++a) gram[a * d + a] += strength * trace / double(d);
    solve(gram, w, d, k);
  } else {
    std::fill(w.begin(), w.end(), 0.0);
  }
  std::size_t correct = 0;
  for (std::size_t i = 0; i < test.labels.size(); ++i) {
    std::vector<double> score = share;
    for (std::size_t a = 0; a < d; ++a)
      for (std::size_t c = 0; c < k; ++c) score[c] += (test.x[i * d + a] - mean[a]) * w[a * k + c];
    const auto best = std::max_element(score.begin(), score.end()) - score.begin();
    correct += best == test.labels[i];
  }
  return double(correct) / double(test.labels.size());
}

}  // namespace eg
