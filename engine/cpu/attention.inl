// engine/cpu/attention.inl - attention over packed qkv and the norm of q and k (see attention.cpp), for one
// instruction set. Includes small_product.inl.

#include "engine/cpu/small_product.inl"

// Query rows per block: the block's scores take about 96 KiB, whatever the sequence length; depends on the shape alone.
inline std::int64_t query_block(std::int64_t tokens) {
  const std::int64_t fit = std::max<std::int64_t>(20, 24576 / padded(tokens));
  return std::min(tokens, fit / 20 * 20);
}
// A row length that does not map all rows of a column to the same few cache sets.
inline std::int64_t score_row(std::int64_t tokens) {
  const std::int64_t n = padded(tokens);
  return n % 256 ? n : n + F32::kLanes;
}

struct HeadShape {
  std::int64_t tokens, heads, width, token_row, out_row;  // row strides of qkv and out in elements
  float scale;
  HeadShape(const Shape& qkv, double scale_by)
      : tokens(qkv[1]),
        heads(qkv[3]),
        width(qkv[4]),
        token_row(3 * qkv[3] * qkv[4]),
        out_row(qkv[3] * qkv[4]),
        scale(float(scale_by)) {}
};

// The same rows of the next head of this image (none after the last), `parts` pieces of `row` elements each.
template <class T>
Ahead next_head(const T* at, const HeadShape& h, std::int64_t head, std::int64_t row, std::int64_t parts,
                std::int64_t pace) {
  constexpr std::int64_t kSize = sizeof(T);
  const std::int64_t rows = head + 1 < h.heads ? h.tokens : 0;
  return {reinterpret_cast<const char*>(at + (rows ? h.width : 0)),
          rows,
          row * kSize,
          parts,
          h.out_row * kSize,
          h.width * kSize,
          pace};
}

// Heads of one image are neighbours in memory: one thread takes them in turn when there are images enough for all
// threads. No result depends on this.
inline std::int64_t heads_per_chunk(const Shape& qkv) { return qkv[0] >= 4 * num_threads() ? qkv[3] : 1; }

struct SoftmaxRow {
  float largest, sum, weighted;  // max t, sum e^(t - max), sum of e^(t - max) (t - max)
};

// s[0, n) becomes e^(scale s - max).
inline SoftmaxRow softmax_row(float* s, std::int64_t count, float scale) {
  const F32 factor = broadcast(scale), lowest = broadcast(-std::numeric_limits<float>::infinity());
  F32 top = lowest;
  for_each_vector(count, [&](std::int64_t i, std::int64_t n) {
    F32 t = load(s + i) * factor;
    if (n != F32::kLanes) t = select(first_lanes(n), t, lowest);
    top = max(t, top);
  });
  const float largest = reduce_max(top);
  const F32 shift = broadcast(largest);
  F32 sum = zero(), weighted = zero();
  for_each_vector(count, [&](std::int64_t i, std::int64_t n) {
    const F32 t = fma(load(s + i), factor, zero() - shift);
    F32 p = exp(t);
    if (n != F32::kLanes) p = select(first_lanes(n), p, zero());
    store(s + i, p);
    sum += p;
    weighted = fma(p, t, weighted);
  });
  return {largest, reduce_add(sum), reduce_add(weighted)};
}

inline void write_map_row(float* to, const float* p, std::int64_t count, float factor) {
  const F32 f = broadcast(factor);
  for_each_vector(count, [&](std::int64_t i, std::int64_t n) { store_some(to + i, load(p + i) * f, n); });
}

template <class T>
void attention_fwd_head(const AttentionFwd& a, std::int64_t image, std::int64_t head) {
  const HeadShape h(a.qkv.shape, a.scale);
  const std::int64_t N = h.tokens, D = h.width, Dp = padded(D), Np = score_row(N), block = query_block(N);
  const T* const q = a.qkv.as<T>() + image * N * h.token_row + head * D;
  const T *const k = q + h.out_row, *const v = k + h.out_row;
  T* const out = a.out.as<T>() + image * N * h.out_row + head * D;
  const std::int64_t row0 = (image * h.heads + head) * N;
  float* const keys = thread_scratch(std::size_t(D * Np + N * Dp + block * (Np + 2 * Dp)));
  float *const values = keys + D * Np, *const scores = values + N * Dp, *const result = scores + block * Np;
  float* const queries = result + block * Dp;
  Ahead ahead = next_head(q, h, head, h.token_row, 3, 3);
  transpose(k, h.token_row, keys, Np, N, D);
  copy_rows(v, h.token_row, values, Dp, N, D);
  for (std::int64_t from = 0; from < N; from += block) {
    const std::int64_t rows = std::min(block, N - from);
    copy_rows(q + from * h.token_row, h.token_row, queries, Dp, rows, D);
    product({queries, Dp, 1}, keys, Np, scores, Np, rows, padded(N), D, false, &ahead);
    for (std::int64_t r = 0; r < rows; ++r) {
      const SoftmaxRow s = softmax_row(scores + r * Np, N, h.scale);
      const float log_sum = std::log(s.sum), inverse = 1.0f / s.sum;
      a.lse.as<float>()[row0 + from + r] = s.largest + log_sum;
      if (a.row_entropy) a.row_entropy.as<float>()[row0 + from + r] = log_sum - s.weighted * inverse;
      if (a.map) write_map_row(a.map.as<float>() + (row0 + from + r) * N, scores + r * Np, N, inverse);
      queries[r] = inverse;  // the block's queries are used up
    }
    product({scores, Np, 1}, values, Dp, result, Dp, rows, Dp, N, false, &ahead);
    for (std::int64_t r = 0; r < rows; ++r) {
      const F32 inverse = broadcast(queries[r]);
      for_each_vector(D, [&](std::int64_t i, std::int64_t n) {
        store_some(out + (from + r) * h.out_row + i, load(result + r * Dp + i) * inverse, n);
      });
    }
  }
}

inline void attention_fwd(const AttentionFwd& a) {
  const std::int64_t heads = a.qkv.dim(3);
  with_activation("attention_fwd", a.qkv.dtype, [&](auto t) {
    parallel_for(a.qkv.dim(0) * heads, heads_per_chunk(a.qkv.shape),
                 [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                   for (std::int64_t item = begin; item < end; ++item)
                     attention_fwd_head<decltype(t)>(a, item / heads, item % heads);
                 });
  });
}

// p: scores -> probabilities; d: dP -> dS = scale P (dP - delta).
inline void score_gradient_row(float* p, float* d, std::int64_t count, float scale, float lse, float delta) {
  const F32 factor = broadcast(scale), shift = broadcast(-lse), offset = broadcast(delta);
  for (std::int64_t i = 0; i < count; i += F32::kLanes) {
    const F32 probability = exp(fma(load(p + i), factor, shift));
    store(p + i, probability);
    store(d + i, probability * (load(d + i) - offset) * factor);
  }
}

template <class T>
float dot_row(const T* a, const T* b, std::int64_t count) {
  F32 sum = zero();
  for_each_vector(count,
                  [&](std::int64_t i, std::int64_t n) { sum = fma(load_some(a + i, n), load_some(b + i, n), sum); });
  return reduce_add(sum);
}

template <class T>
void write_rows(const float* from, std::int64_t from_row, T* to, std::int64_t to_row, std::int64_t rows,
                std::int64_t columns, bool accumulate) {
  for (std::int64_t r = 0; r < rows; ++r)
    for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
      F32 x = load(from + r * from_row + i);
      if (accumulate) x += load_some(to + r * to_row + i, n);
      store_some(to + r * to_row + i, x, n);
    });
}

template <class T>
void attention_bwd_head(const AttentionBwd& a, std::int64_t image, std::int64_t head) {
  const HeadShape h(a.qkv.shape, a.scale);
  const std::int64_t N = h.tokens, D = h.width, Dp = padded(D), Np = score_row(N), block = query_block(N);
  const std::int64_t in = image * N * h.token_row + head * D, res = image * N * h.out_row + head * D;
  const T *const q = a.qkv.as<T>() + in, *const k = q + h.out_row, *const v = k + h.out_row;
  const T *const out = a.out.as<T>() + res, *const dout = a.dout.as<T>() + res;
  T* const dq = a.dqkv.as<T>() + in;
  const float* const lse = a.lse.as<float>() + (image * h.heads + head) * N;
  float* const keys_t = thread_scratch(std::size_t(2 * D * Np + 3 * N * Dp + block * (2 * Np + 3 * Dp)));
  float *const values_t = keys_t + D * Np, *const keys = values_t + D * Np, *const dk = keys + N * Dp;
  float *const dv = dk + N * Dp, *const p = dv + N * Dp, *const ds = p + block * Np;
  float *const queries = ds + block * Np, *const upstream = queries + block * Dp, *const dqs = upstream + block * Dp;
  Ahead own{reinterpret_cast<const char*>(dq),
            N,
            h.token_row * std::int64_t(sizeof(T)),
            3,
            h.out_row * std::int64_t(sizeof(T)),
            D * std::int64_t(sizeof(T)),
            6};
  Ahead next_qkv = next_head(q, h, head, h.token_row, 3, 3), next_out = next_head(out, h, head, h.out_row, 1, 6);
  Ahead next_dout = next_head(dout, h, head, h.out_row, 1, 6);
  transpose(k, h.token_row, keys_t, Np, N, D);
  transpose(v, h.token_row, values_t, Np, N, D);
  copy_rows(k, h.token_row, keys, Dp, N, D);
  for (std::int64_t from = 0; from < N; from += block) {
    const std::int64_t rows = std::min(block, N - from);
    copy_rows(q + from * h.token_row, h.token_row, queries, Dp, rows, D);
    copy_rows(dout + from * h.out_row, h.out_row, upstream, Dp, rows, D);
    product({queries, Dp, 1}, keys_t, Np, p, Np, rows, padded(N), D, false, &own);
    product({upstream, Dp, 1}, values_t, Np, ds, Np, rows, padded(N), D, false, &next_dout);
    for (std::int64_t r = 0; r < rows; ++r) {
      const float delta = dot_row(out + (from + r) * h.out_row, dout + (from + r) * h.out_row, D);
      score_gradient_row(p + r * Np, ds + r * Np, N, h.scale, lse[from + r], delta);
    }
    product({p, 1, Np}, upstream, Dp, dv, Dp, N, Dp, rows, from > 0, &next_qkv);
    product({ds, 1, Np}, queries, Dp, dk, Dp, N, Dp, rows, from > 0, &next_qkv);
    product({ds, Np, 1}, keys, Dp, dqs, Dp, rows, Dp, N, false, &next_out);
    write_rows(dqs, Dp, dq + from * h.token_row, h.token_row, rows, D, a.accumulate);
  }
  write_rows(dk, Dp, dq + h.out_row, h.token_row, N, D, a.accumulate);
  write_rows(dv, Dp, dq + 2 * h.out_row, h.token_row, N, D, a.accumulate);
}

inline void attention_bwd(const AttentionBwd& a) {
  const std::int64_t heads = a.qkv.dim(3);
  with_activation("attention_bwd", a.qkv.dtype, [&](auto t) {
    parallel_for(a.qkv.dim(0) * heads, heads_per_chunk(a.qkv.shape),
                 [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                   for (std::int64_t item = begin; item < end; ++item)
                     attention_bwd_head<decltype(t)>(a, item / heads, item % heads);
                 });
  });
}

// ---- the norm of q and k ------------------------------------------------------------------------------------------

// Statistics and the normalised, scaled vector of one head of q or k.
template <class T>
void norm_head_fwd(const T* x, T* y, const float* gamma, const float* beta, std::int64_t width, float eps, float* mean,
                   float* rstd) {
  F32 total = zero(), squares = zero();
  for_each_vector(width, [&](std::int64_t i, std::int64_t n) { total += load_some(x + i, n); });
  *mean = reduce_add(total) / float(width);
  const F32 m = broadcast(*mean);
  for_each_vector(width, [&](std::int64_t i, std::int64_t n) {
    F32 d = load_some(x + i, n) - m;
    if (n != F32::kLanes) d = select(first_lanes(n), d, zero());
    squares = fma(d, d, squares);
  });
  *rstd = 1.0f / std::sqrt(reduce_add(squares) / float(width) + eps);
  const F32 s = broadcast(*rstd);
  for_each_vector(width, [&](std::int64_t i, std::int64_t n) {
    const F32 hat = (load_some(x + i, n) - m) * s;
    store_some(y + i, fma(hat, load_some(gamma + i, n), load_some(beta + i, n)), n);
  });
}

template <class T>
void norm_head_bwd(const T* x, const T* dy, T* dx, const float* gamma, std::int64_t width, float mean, float rstd,
                   float* dgamma, float* dbeta, bool accumulate) {
  const F32 m = broadcast(mean), s = broadcast(rstd);
  F32 g = zero(), gh = zero();
  for_each_vector(width, [&](std::int64_t i, std::int64_t n) {
    const F32 d = load_some(dy + i, n), hat = (load_some(x + i, n) - m) * s, w = load_some(gamma + i, n);
    store_some(dgamma + i, fma(d, hat, load_some(dgamma + i, n)), n);
    store_some(dbeta + i, load_some(dbeta + i, n) + d, n);
    g = fma(d, w, g);
    gh = fma(d * w, hat, gh);
  });
  const F32 mean_g = broadcast(reduce_add(g) / float(width)), mean_gh = broadcast(reduce_add(gh) / float(width));
  for_each_vector(width, [&](std::int64_t i, std::int64_t n) {
    const F32 hat = (load_some(x + i, n) - m) * s;
    F32 d = s * fnma(hat, mean_gh, fma(load_some(dy + i, n), load_some(gamma + i, n), zero() - mean_g));
    if (accumulate) d += load_some(dx + i, n);
    store_some(dx + i, d, n);
  });
}

template <class T>
void copy_values(const T* from, T* to, std::int64_t n, bool accumulate) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) {
    F32 x = load_some(from + i, m);
    if (accumulate) x += load_some(to + i, m);
    store_some(to + i, x, m);
  });
}

inline void qk_norm_fwd_range(const QkNormFwd& a, const QkNormParams& params, std::int64_t begin, std::int64_t end) {
  const std::int64_t H = a.qkv.dim(3), D = a.qkv.dim(4);
  with_activation("qk_norm_fwd", a.qkv.dtype, [&](auto t) {
    using T = decltype(t);
    for (std::int64_t token = begin; token < end; ++token) {
      const T* const x = a.qkv.as<T>() + token * 3 * H * D;
      T* const y = a.out.as<T>() + token * 3 * H * D;
      for (std::int64_t part = 0; part < 2 * H; ++part) {
        const std::int64_t which = part / H, at = token * 2 * H + part;
        norm_head_fwd(x + part * D, y + part * D, params.gamma[which], params.beta[which], D, float(a.eps),
                      a.mean.as<float>() + at, a.rstd.as<float>() + at);
      }
      if (y != x) copy_values(x + 2 * H * D, y + 2 * H * D, H * D, false);
    }
  });
}

// partial: dgamma_q, dbeta_q, dgamma_k, dbeta_k of this range of tokens, D floats each.
inline void qk_norm_bwd_range(const QkNormBwd& a, const QkNormParams& params, std::int64_t begin, std::int64_t end,
                              float* partial) {
  const std::int64_t H = a.qkv.dim(3), D = a.qkv.dim(4);
  std::fill(partial, partial + 4 * D, 0.0f);
  with_activation("qk_norm_bwd", a.qkv.dtype, [&](auto t) {
    using T = decltype(t);
    for (std::int64_t token = begin; token < end; ++token) {
      const std::int64_t first_element = token * 3 * H * D;
      const T *const x = a.qkv.as<T>() + first_element, *const dy = a.dout.as<T>() + first_element;
      T* const dx = a.dqkv.as<T>() + first_element;
      for (std::int64_t part = 0; part < 2 * H; ++part) {
        const std::int64_t which = part / H, at = token * 2 * H + part;
        norm_head_bwd(x + part * D, dy + part * D, dx + part * D, params.gamma[which], D, a.mean.as<float>()[at],
                      a.rstd.as<float>()[at], partial + 2 * which * D, partial + (2 * which + 1) * D, a.accumulate);
      }
      if (dx != dy || a.accumulate) copy_values(dy + 2 * H * D, dx + 2 * H * D, H * D, a.accumulate);
    }
  });
}
