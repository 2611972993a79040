// engine/reference/prompt.cpp - a pool of prompts (Wang et al. 2022, arXiv:2112.08654).
//
//   match    cosine[b,m] = q_b . k_m / (|q_b| |k_m|), each norm sqrt(|x|^2 + 1e-12); chosen[b] = the S largest, or those that
//            most images have; match[b] = sum of cosine[b] over chosen[b]
//            d cosine / d k = (q^ - cosine k^) / |k|, where x^ = x / |x|
//   prepend  out[b] = concat(prompts[chosen[b]], x[b]); dprompts[m] = sum of dout at the places where m was put
//
// Shapes: query [B,C], keys [M,C], cosine [B,M], chosen [B,S]; prompts [M,L,C], x [B,N,C], out [B,S L + N,C].
#include <cmath>
#include <vector>

#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {
namespace {

void inverse_norms(const TensorView& x, const TensorView& scale) {
  const std::int64_t C = x.cols();
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    double sum = 1e-12;
    for (std::int64_t c = 0; c < C; ++c) sum += get(x, r * C + c) * get(x, r * C + c);
    put(scale, r, 1.0 / std::sqrt(sum));
  }
}

/// to[0 .. S-1] = indices of the S largest scores, largest first; equal ones by index, NaN last.
void choose_largest(const std::vector<double>& scores, const TensorView& to, std::int64_t at, std::int64_t S) {
  const auto order = [&](std::size_t m) { return scores[m] == scores[m] ? scores[m] : -2.0; };
  for (std::size_t m = 0; m < scores.size(); ++m) {
    std::int64_t rank = 0;
    for (std::size_t other = 0; other < scores.size(); ++other)
      rank += order(other) > order(m) || (order(other) == order(m) && other < m);
    if (rank < S) put(to, at + rank, double(m));
  }
}

void choose_for_all(const TensorView& chosen, std::int64_t M) {
  const std::int64_t B = chosen.dim(0), S = chosen.dim(1);
  std::vector<double> votes(static_cast<std::size_t>(M), 0.0);
  for (std::int64_t i = 0; i < B * S; ++i) votes[std::size_t(get(chosen, i))] += 1.0;
  for (std::int64_t b = 0; b < B; ++b) choose_largest(votes, chosen, b * S, S);
}

}  // namespace

void prompt_match_fwd(const PromptMatchFwd& a, Stream) {
  const std::int64_t B = a.query.dim(0), C = a.query.dim(1), M = a.keys.dim(0), S = a.chosen.dim(1);
  inverse_norms(a.query, a.query_scale), inverse_norms(a.keys, a.key_scale);
  for (std::int64_t b = 0; b < B; ++b) {
    std::vector<double> cosines(static_cast<std::size_t>(M), 0.0);
    for (std::int64_t m = 0; m < M; ++m) {
      double dot = 0.0;
      for (std::int64_t c = 0; c < C; ++c) dot += get(a.query, b * C + c) * get(a.keys, m * C + c);
      cosines[std::size_t(m)] = dot * get(a.query_scale, b) * get(a.key_scale, m);
      put(a.cosine, b * M + m, cosines[std::size_t(m)]);
    }
    choose_largest(cosines, a.chosen, b * S, S);
  }
  if (a.batchwise) choose_for_all(a.chosen, M);
  for (std::int64_t b = 0; b < B; ++b) {
    double sum = 0.0;
    for (std::int64_t s = 0; s < S; ++s) sum += get(a.cosine, b * M + std::int64_t(get(a.chosen, b * S + s)));
    put(a.match, b, sum);
  }
}

void prompt_match_bwd(const PromptMatchBwd& a, Stream) {
  const std::int64_t B = a.query.dim(0), C = a.query.dim(1), M = a.keys.dim(0), S = a.chosen.dim(1);
  const auto has = [&](std::int64_t b, std::int64_t m) {
    for (std::int64_t s = 0; s < S; ++s)
      if (std::int64_t(get(a.chosen, b * S + s)) == m) return true;
    return false;
  };
  for (std::int64_t m = 0; m < M; ++m) {
    const double key_scale = get(a.key_scale, m);
    for (std::int64_t c = 0; c < C; ++c) {
      double sum = 0.0;
      for (std::int64_t b = 0; b < B; ++b)
        if (has(b, m))
          sum += get(a.query, b * C + c) * get(a.query_scale, b) -
                 get(a.cosine, b * M + m) * key_scale * get(a.keys, m * C + c);
      put(a.dkeys, m * C + c, a.scale * get(a.dmatch, 0) * key_scale * sum, a.accumulate);
    }
  }
}

void prompt_prepend_fwd(const PromptPrependFwd& a, Stream) {
  const std::int64_t B = a.x.dim(0), N = a.x.dim(1), C = a.x.dim(2), L = a.prompts.dim(1), S = a.chosen.dim(1);
  const std::int64_t tokens = S * L + N;
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < tokens; ++t) {
      const std::int64_t row = t < S * L ? std::int64_t(get(a.chosen, b * S + t / L)) * L + t % L : 0;
      for (std::int64_t c = 0; c < C; ++c)
        put(a.out, (b * tokens + t) * C + c,
            t < S * L ? get(a.prompts, row * C + c) : get(a.x, (b * N + t - S * L) * C + c));
    }
}

void prompt_prepend_bwd(const PromptPrependBwd& a, Stream) {
  const std::int64_t B = a.dout.dim(0), tokens = a.dout.dim(1), C = a.dout.dim(2);
  const std::int64_t M = a.dprompts.dim(0), L = a.dprompts.dim(1), S = a.chosen.dim(1);
  for (std::int64_t m = 0; m < M; ++m)
    for (std::int64_t i = 0; i < L * C; ++i) {
      double sum = 0.0;
      for (std::int64_t b = 0; b < B; ++b)
        for (std::int64_t s = 0; s < S; ++s)
          if (std::int64_t(get(a.chosen, b * S + s)) == m) sum += get(a.dout, (b * tokens + s * L) * C + i);
      put(a.dprompts, m * L * C + i, sum, a.accumulate);
    }
}

}  // namespace eg::reference
