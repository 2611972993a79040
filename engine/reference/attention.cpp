// engine/reference/attention.cpp - multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762), its gradient, and
// layer norm of q and k (Dehghani et al. 2023, arXiv:2302.05442).
//
// Shapes: qkv [B,N,3,H,D] is the output of one fused projection: for every token the vectors q, k, v of every head.
// out [B,N,H,D]; lse, row_entropy [B,H,N]; map [B,H,N,N]. For one image and one head, with Q, K, V [N,D]:
//
//   S = scale Q K^T,   lse_i = log sum_j e^(S_ij),   P_ij = e^(S_ij - lse_i),   O = P V
//   row entropy  -sum_j P_ij log P_ij = lse_i - sum_j P_ij S_ij
//
// Backward keeps only lse of all this (Dao et al. 2022, arXiv:2205.14135): S and P are computed again. Then
//
//   dV = P^T dO,   dP = dO V^T,   delta_i = sum_j P_ij dP_ij = dO_i . O_i,   dS_ij = scale P_ij (dP_ij - delta_i)
//   dQ = dS K,     dK = dS^T Q
//
// delta is the gradient of the softmax's normalisation; the identity on its right saves the sum over j.
#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

enum Part { kQuery, kKey, kValue };

/// Where the vectors of one head of one image begin.
struct Head {
  std::int64_t tokens, heads, width, image, head;
  Head(const Shape& qkv, std::int64_t of_image, std::int64_t of_head)
      : tokens(qkv[1]), heads(qkv[3]), width(qkv[4]), image(of_image), head(of_head) {}
  /// First element of q, k or v of one token, in qkv.
  std::int64_t at(Part part, std::int64_t token) const {
    return (((image * tokens + token) * 3 + part) * heads + head) * width;
  }
  /// The same in out.
  std::int64_t out_at(std::int64_t token) const { return ((image * tokens + token) * heads + head) * width; }
  /// The number of one query in lse and row_entropy.
  std::int64_t query(std::int64_t token) const { return (image * heads + head) * tokens + token; }
};

double dot(const TensorView& a, std::int64_t a0, const TensorView& b, std::int64_t b0, std::int64_t n) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += get(a, a0 + i) * get(b, b0 + i);
  return sum;
}

double score(const TensorView& qkv, double scale, const Head& h, std::int64_t query, std::int64_t key) {
  return scale * dot(qkv, h.at(kQuery, query), qkv, h.at(kKey, key), h.width);
}

void attend(const AttentionFwd& a, const Head& h, std::int64_t query) {
  std::vector<double> s(std::size_t(h.tokens)), p(s.size());
  for (std::int64_t j = 0; j < h.tokens; ++j) s[std::size_t(j)] = score(a.qkv, a.scale, h, query, j);
  // e^(s - largest) cannot overflow, and the factor e^(-largest) cancels in P.
  const double largest = *std::max_element(s.begin(), s.end());
  double sum = 0.0;
  for (const double x : s) sum += std::exp(x - largest);
  const double lse = largest + std::log(sum);
  double entropy = 0.0;
  for (std::size_t j = 0; j < s.size(); ++j) {
    p[j] = std::exp(s[j] - lse);
    entropy += p[j] * (lse - s[j]);
  }
  put(a.lse, h.query(query), lse);
  if (a.row_entropy) put(a.row_entropy, h.query(query), entropy);
  for (std::int64_t j = 0; a.map && j < h.tokens; ++j) put(a.map, h.query(query) * h.tokens + j, p[std::size_t(j)]);
  for (std::int64_t d = 0; d < h.width; ++d) {
    double o = 0.0;
    for (std::int64_t j = 0; j < h.tokens; ++j) o += p[std::size_t(j)] * get(a.qkv, h.at(kValue, j) + d);
    put(a.out, h.out_at(query) + d, o);
  }
}

using Matrix = std::vector<double>;  // [N,D] or [N,N], row after row

void attention_bwd_head(const AttentionBwd& a, const Head& h) {
  const std::int64_t N = h.tokens, D = h.width;
  Matrix dq(std::size_t(N * D)), dk(dq.size()), dv(dq.size());
  for (std::int64_t i = 0; i < N; ++i) {
    const double lse = get(a.lse, h.query(i)), delta = dot(a.dout, h.out_at(i), a.out, h.out_at(i), D);
    for (std::int64_t j = 0; j < N; ++j) {
      const double p = std::exp(score(a.qkv, a.scale, h, i, j) - lse);
      const double dp = dot(a.dout, h.out_at(i), a.qkv, h.at(kValue, j), D);
      const double ds = a.scale * p * (dp - delta);
      for (std::int64_t d = 0; d < D; ++d) {
        dq[std::size_t(i * D + d)] += ds * get(a.qkv, h.at(kKey, j) + d);
        dk[std::size_t(j * D + d)] += ds * get(a.qkv, h.at(kQuery, i) + d);
        dv[std::size_t(j * D + d)] += p * get(a.dout, h.out_at(i) + d);
      }
    }
  }
  for (std::int64_t i = 0; i < N; ++i)
    for (std::int64_t d = 0; d < D; ++d) {
      put(a.dqkv, h.at(kQuery, i) + d, dq[std::size_t(i * D + d)], a.accumulate);
      put(a.dqkv, h.at(kKey, i) + d, dk[std::size_t(i * D + d)], a.accumulate);
      put(a.dqkv, h.at(kValue, i) + d, dv[std::size_t(i * D + d)], a.accumulate);
    }
}

}  // namespace

void attention_fwd(const AttentionFwd& a, Stream) {
  for (std::int64_t image = 0; image < a.qkv.dim(0); ++image)
    for (std::int64_t head = 0; head < a.qkv.dim(3); ++head)
      for (std::int64_t query = 0; query < a.qkv.dim(1); ++query) attend(a, Head(a.qkv.shape, image, head), query);
}

void attention_bwd(const AttentionBwd& a, Stream) {
  for (std::int64_t image = 0; image < a.qkv.dim(0); ++image)
    for (std::int64_t head = 0; head < a.qkv.dim(3); ++head) attention_bwd_head(a, Head(a.qkv.shape, image, head));
}

// ---- layer norm of q and k: each vector of D numbers has its own mean and 1 / standard deviation; gamma and beta [D]
// are shared by the heads, one pair for q and one for k; v passes through. The formulas are those of layer_norm.cpp.
// mean, rstd [B,N,2,H].

void qk_norm_fwd(const QkNormFwd& a, Stream) {
  const std::int64_t tokens = a.qkv.dim(0) * a.qkv.dim(1), H = a.qkv.dim(3), D = a.qkv.dim(4);
  for (std::int64_t vector = 0; vector < tokens * 3 * H; ++vector) {
    const std::int64_t token = vector / (3 * H), part = vector / H % 3, head = vector % H, at = vector * D;
    if (part == kValue) {
      for (std::int64_t d = 0; d < D; ++d) put(a.out, at + d, get(a.qkv, at + d));
      continue;
    }
    const TensorView &gamma = part == kQuery ? a.gamma_q : a.gamma_k, &beta = part == kQuery ? a.beta_q : a.beta_k;
    double mean = 0.0, variance = 0.0;
    for (std::int64_t d = 0; d < D; ++d) mean += get(a.qkv, at + d) / double(D);
    for (std::int64_t d = 0; d < D; ++d) variance += std::pow(get(a.qkv, at + d) - mean, 2) / double(D);
    const double rstd = 1.0 / std::sqrt(variance + a.eps);
    put(a.mean, (token * 2 + part) * H + head, mean);
    put(a.rstd, (token * 2 + part) * H + head, rstd);
    for (std::int64_t d = 0; d < D; ++d)
      put(a.out, at + d, (get(a.qkv, at + d) - mean) * rstd * get(gamma, d) + get(beta, d));
  }
}

void qk_norm_bwd(const QkNormBwd& a, Stream) {
  const std::int64_t tokens = a.qkv.dim(0) * a.qkv.dim(1), H = a.qkv.dim(3), D = a.qkv.dim(4);
  Matrix dgamma(std::size_t(2 * D)), dbeta(dgamma.size());
  for (std::int64_t vector = 0; vector < tokens * 3 * H; ++vector) {
    const std::int64_t token = vector / (3 * H), part = vector / H % 3, head = vector % H, at = vector * D;
    if (part == kValue) {
      for (std::int64_t d = 0; d < D; ++d) put(a.dqkv, at + d, get(a.dout, at + d), a.accumulate);
      continue;
    }
    const TensorView& gamma = part == kQuery ? a.gamma_q : a.gamma_k;
    const std::int64_t statistic = (token * 2 + part) * H + head;
    const double mean = get(a.mean, statistic), rstd = get(a.rstd, statistic);
    double mean_g = 0.0, mean_gh = 0.0;
    for (std::int64_t d = 0; d < D; ++d) {
      const double dy = get(a.dout, at + d), h = (get(a.qkv, at + d) - mean) * rstd, g = dy * get(gamma, d);
      dgamma[std::size_t(part * D + d)] += dy * h;
      dbeta[std::size_t(part * D + d)] += dy;
      mean_g += g / double(D);
      mean_gh += g * h / double(D);
    }
    for (std::int64_t d = 0; d < D; ++d) {
      const double g = get(a.dout, at + d) * get(gamma, d), h = (get(a.qkv, at + d) - mean) * rstd;
      put(a.dqkv, at + d, rstd * (g - mean_g - h * mean_gh), a.accumulate);
    }
  }
  const auto write = [&](const TensorView& to, const Matrix& sums, Part part) {
    for (std::int64_t d = 0; to && d < D; ++d) put(to, d, sums[std::size_t(part * D + d)], a.accumulate_params);
  };
  write(a.dgamma_q, dgamma, kQuery);
  write(a.dbeta_q, dbeta, kQuery);
  write(a.dgamma_k, dgamma, kKey);
  write(a.dbeta_k, dbeta, kKey);
}

}  // namespace eg::reference
