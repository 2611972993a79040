// engine/reference/cross_entropy.cpp - softmax cross-entropy with label smoothing (Szegedy et al. 2016,
// arXiv:1512.00567), loss and gradient together.
//
// With sums over the allowed classes only, A of them:
//
//   log p_k = z_k - log sum_j e^(z_j)
//   t_k     = (1 - eps) target_k + eps / A         target: one-hot label, or the row of soft targets
//   loss    = -sum_k t_k log p_k                   dz_k = (p_k - t_k) scale, and 0 for a class that is not allowed
//   correct = the largest logit is the label's (or the largest target's); among equals the lowest index counts
//
// A label whose class is not allowed has probability 0: its loss is infinite, and its gradient pulls at no class.
// Shapes: logits, dlogits, soft [B,K]; labels, loss, correct [B]; class_mask [K], 0 = not allowed.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

bool allowed(const CrossEntropy& a, std::int64_t k) { return !a.class_mask || get(a.class_mask, k) != 0.0; }

/// Index of the first largest value of a row among allowed classes.
std::int64_t largest(const CrossEntropy& a, const TensorView& values, std::int64_t row) {
  const std::int64_t K = values.cols();
  std::int64_t best = -1;
  for (std::int64_t k = 0; k < K; ++k)
    if (allowed(a, k) && (best < 0 || get(values, row * K + k) > get(values, row * K + best))) best = k;
  return best;
}

void one_row(const CrossEntropy& a, std::int64_t row) {
  const std::int64_t K = a.logits.cols(), best = largest(a, a.logits, row), first = row * K;
  const double top = best < 0 ? 0.0 : get(a.logits, first + best);
  double sum = 0.0, count = 0.0;
  for (std::int64_t k = 0; k < K; ++k)
    if (allowed(a, k)) sum += std::exp(get(a.logits, first + k) - top), count += 1.0;
  const double log_sum = top + std::log(sum);
  const std::int64_t label = a.soft ? largest(a, a.soft, row) : std::int64_t(get(a.labels, row));

  double loss = a.soft || allowed(a, label) ? 0.0 : std::numeric_limits<double>::infinity();
  for (std::int64_t k = 0; k < K; ++k) {
    if (!allowed(a, k)) {
      if (a.dlogits) put(a.dlogits, first + k, 0.0);
      continue;
    }
    const double log_p = get(a.logits, first + k) - log_sum;
    const double target = a.soft ? get(a.soft, first + k) : double(k == label);
    const double t = (1.0 - a.smoothing) * target + a.smoothing / count;
    if (t != 0.0) loss -= t * log_p;  // 0 log 0 is 0
    if (a.dlogits) put(a.dlogits, first + k, (std::exp(log_p) - t) * a.scale);
  }
  if (a.loss) put(a.loss, row, loss);
  if (a.correct) put(a.correct, row, best == label ? 1.0 : 0.0);
}

}  // namespace

void cross_entropy(const CrossEntropy& a, Stream) {
  for (std::int64_t row = 0; row < a.logits.rows(); ++row) one_row(a, row);
}

}  // namespace eg::reference
