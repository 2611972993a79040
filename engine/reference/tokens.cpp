// engine/reference/tokens.cpp - the sequence a Vision Transformer works on (Dosovitskiy et al. 2021, arXiv:2010.11929;
// register tokens: Darcet et al. 2024, arXiv:2309.16588), and what is read from it at the end.
//
//   tokens   out[b] = [prefix; patches[b]] + pos     pos has a row for every token, or for patches alone
//            dpatches = dout of the patches, dprefix and dpos = sums of dout over the images of the batch
//   pool     out[b] = mean of tokens [first, first + count) of x[b]; count = 1 picks the class token
//            dx = dout / count for these tokens, 0 for all others
//
// Shapes: out [B,p+n,C]; patches [B,n,C]; prefix [p,C]; pos [p+n,C] or [n,C]; pooled [B,C].
#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void tokens_fwd(const TokensFwd& a, Stream) {
  const std::int64_t B = a.out.dim(0), N = a.out.dim(1), C = a.out.dim(2), n = a.patches.dim(1), prefix = N - n;
  const std::int64_t without_pos = a.pos ? N - a.pos.rows() : N;  // leading tokens
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < N; ++t)
      for (std::int64_t c = 0; c < C; ++c) {
        double value = t < prefix ? get(a.prefix, t * C + c) : get(a.patches, (b * n + t - prefix) * C + c);
        if (t >= without_pos) value += get(a.pos, (t - without_pos) * C + c);
        put(a.out, (b * N + t) * C + c, value);
      }
}

namespace {

/// to[r] (+)= sum over images of dout[b, first + r].
void sum_over_images(const TensorView& dout, std::int64_t first, const TensorView& to, bool accumulate) {
  const std::int64_t B = dout.dim(0), N = dout.dim(1), C = dout.dim(2);
  for (std::int64_t i = 0; i < to.size(); ++i) {
    double sum = 0.0;
    for (std::int64_t b = 0; b < B; ++b) sum += get(dout, (b * N + first) * C + i);
    put(to, i, sum, accumulate);
  }
}

}  // namespace

void tokens_bwd(const TokensBwd& a, Stream) {
  const std::int64_t B = a.dout.dim(0), N = a.dout.dim(1), C = a.dout.dim(2);
  if (a.dpatches) {
    const std::int64_t n = a.dpatches.dim(1);
    for (std::int64_t b = 0; b < B; ++b)
      for (std::int64_t i = 0; i < n * C; ++i)
        put(a.dpatches, b * n * C + i, get(a.dout, (b * N + N - n) * C + i), a.accumulate);
  }
  if (a.dprefix) sum_over_images(a.dout, 0, a.dprefix, a.accumulate_prefix);
  if (a.dpos) sum_over_images(a.dout, N - a.dpos.rows(), a.dpos, a.accumulate_pos);
}

void pool_fwd(const PoolFwd& a, Stream) {
  const std::int64_t B = a.x.dim(0), N = a.x.dim(1), C = a.x.dim(2);
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t c = 0; c < C; ++c) {
      double sum = 0.0;
      for (std::int64_t t = a.first; t < a.first + a.count; ++t) sum += get(a.x, (b * N + t) * C + c);
      put(a.out, b * C + c, sum / double(a.count));
    }
}

void pool_bwd(const PoolBwd& a, Stream) {
  const std::int64_t B = a.dx.dim(0), N = a.dx.dim(1), C = a.dx.dim(2);
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t t = 0; t < N; ++t)
      for (std::int64_t c = 0; c < C; ++c) {
        const bool pooled = t >= a.first && t < a.first + a.count;
        put(a.dx, (b * N + t) * C + c, pooled ? get(a.dout, b * C + c) / double(a.count) : 0.0, a.accumulate);
      }
}

}  // namespace eg::reference
