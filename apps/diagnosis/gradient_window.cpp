// apps/diagnosis/gradient_window.cpp - see gradient_window.h.
#include "apps/diagnosis/gradient_window.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/diagnosis/spectrum.h"

namespace eg {
namespace {

/// A well-mixed 64-bit hash (the finaliser of SplitMix64, Steele et al. 2014): what sends element i where.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

std::vector<double> gradient_of(const ModuleView& m) { return m.param->grad.slice(m.row, m.rows).to_host(); }

}  // namespace

void count_sketch(std::span<const double> x, std::span<double> out) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::uint64_t h = mixed(i);
    out[std::size_t(h >> 1) % out.size()] += h & 1 ? x[i] : -x[i];
  }
}

WindowStatistics window_statistics(std::span<const double> gram, int n) {
  WindowStatistics s;
  if (n == 0) return s;
  const auto at = [&](int i, int j) { return gram[std::size_t(i * n + j)]; };
  s.norm = std::sqrt(std::max(at(n - 1, n - 1), 0.0));
  double squares = 0.0, sum = 0.0;  // sum |g|^2, |sum g|^2
  for (int i = 0; i < n; ++i) {
    squares += at(i, i);
    for (int j = 0; j < n; ++j) sum += at(i, j);
    if (i == 0) continue;
    const double lengths = std::sqrt(at(i, i) * at(i - 1, i - 1));
    if (lengths > 0.0) s.cosine += at(i, i - 1) / lengths / double(n - 1);
  }
  s.diversity = sum > 0.0 ? squares / sum : 0.0;
  const double mean_square = squares / n, square_mean = sum / (double(n) * n);
  const double variance = n > 1 ? double(n) / (n - 1) * (mean_square - square_mean) : 0.0;
  const double signal = square_mean - variance / n;
  s.noise_ratio = signal > 0.0 ? variance / signal : std::numeric_limits<double>::quiet_NaN();
  std::vector<double> copy(gram.begin(), gram.end());
  for (double& x : copy) x /= n;
  s.spectrum = symmetric_eigenvalues(copy, n);
  std::vector<double> singular;
  double trace = 0.0;
  for (double& l : s.spectrum) {
    l = std::max(l, 0.0);
    trace += l, singular.push_back(std::sqrt(l));
  }
  s.effective_rank = effective_rank(singular);
  s.top_share = trace > 0.0 ? s.spectrum[0] / trace : 0.0;
  return s;
}

GradientWindow::GradientWindow(const std::vector<ModuleView>& modules, int window)
    : modules_(modules), window_(window), filled_(Tensor::zeros({1}, DType::i32, kCpu)) {
  for (const ModuleView& m : modules_)
    columns_.push_back(Tensor::zeros({window, std::min(m.size(), kSketchSize)}, DType::f32, kCpu));
}

std::int64_t GradientWindow::filled() const {
  return filled_ ? std::min<std::int64_t>(window_, std::int64_t(filled_.to_host()[0])) : 0;
}

void GradientWindow::push() {
  const auto pushes = std::int32_t(filled_.to_host()[0]);
  for (std::size_t i = 0; i < modules_.size(); ++i) {
    const std::vector<double> g = gradient_of(modules_[i]);
    std::vector<double> kept(std::size_t(columns_[i].dim(1)), 0.0);
    if (g.size() == kept.size())
      kept = g;
    else
      count_sketch(g, kept);
    columns_[i].slice(pushes % window_, 1).copy_from(Tensor::from(kept, {1, columns_[i].dim(1)}, DType::f32, kCpu));
  }
  filled_.copy_from(Tensor::from(std::vector<std::int32_t>{pushes + 1}, {1}, kCpu));
}

std::vector<WindowStatistics> GradientWindow::statistics() const {
  std::vector<WindowStatistics> all;
  const auto n = int(filled());
  if (n == 0) return std::vector<WindowStatistics>(modules_.size());
  const int oldest = int(filled_.to_host()[0]) % window_;
  for (const Tensor& ring : columns_) {
    const std::vector<double> g = ring.to_host();
    const auto width = std::size_t(ring.dim(1));
    const auto column = [&](int i) { return &g[std::size_t(n < window_ ? i : (oldest + i) % window_) * width]; };
    std::vector<double> gram(std::size_t(n) * std::size_t(n));
    for (int i = 0; i < n; ++i)
      for (int j = 0; j <= i; ++j) {
        double dot = 0.0;
        for (std::size_t k = 0; k < width; ++k) dot += column(i)[k] * column(j)[k];
        gram[std::size_t(i * n + j)] = gram[std::size_t(j * n + i)] = dot;
      }
    all.push_back(window_statistics(gram, n));
  }
  return all;
}

void GradientWindow::visit_state(const std::function<void(const std::string&, Tensor&)>& visit) {
  visit("filled", filled_);
  for (std::size_t i = 0; i < columns_.size(); ++i)
    visit(cat("block", modules_[i].block, ".", modules_[i].name()), columns_[i]);
}

}  // namespace eg
