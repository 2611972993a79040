// engine/cpu/layer_norm.inl - layer norm of rows (see layer_norm.cpp), for one instruction set.

/// Sum over i of f(i, n), f giving zero in lanes past n; four running sums, added in fixed order.
template <class F>
EVERGRAD_INLINE float sum_over(std::int64_t count, const F& f) {
  constexpr std::int64_t kL = F32::kLanes;
  F32 s0 = zero(), s1 = zero(), s2 = zero(), s3 = zero();
  std::int64_t i = 0;
  for (; i + 4 * kL <= count; i += 4 * kL) {
    s0 += f(i, kL);
    s1 += f(i + kL, kL);
    s2 += f(i + 2 * kL, kL);
    s3 += f(i + 3 * kL, kL);
  }
  for (; i + kL <= count; i += kL) s0 += f(i, kL);
  if (i < count) s1 += f(i, count - i);
  return reduce_add((s0 + s1) + (s2 + s3));
}

template <class T>
struct LayerNormRows {
  const T *x, *residual;
  T *sum, *y;
  const float *gamma, *beta;
  float *mean, *rstd;
  std::int64_t columns;
  float eps;
};

template <class T>
void layer_norm_fwd_rows(const LayerNormRows<T>& a, std::int64_t begin, std::int64_t end) {
  const std::int64_t C = a.columns;
  const float inverse = 1.0f / float(C);
  for (std::int64_t r = begin; r < end; ++r) {
    const T* row = a.x + r * C;
    float total;
    if (a.residual) {
      // The statistics are those of the stored (rounded) sum: that is what backward normalises again.
      const T* const other = a.residual + r * C;
      T* const out = a.sum + r * C;
      total = sum_over(C, [&](std::int64_t i, std::int64_t n) {
        const F32 s = load_some(row + i, n) + load_some(other + i, n);
        store_some(out + i, s, n);
        return std::is_same_v<T, float> ? s : load_some(out + i, n);
      });
      row = out;
    } else {
      total = sum_over(C, [&](std::int64_t i, std::int64_t n) { return load_some(row + i, n); });
    }
    const float mean = total * inverse;
    const F32 m = broadcast(mean);
    const float squares = sum_over(C, [&](std::int64_t i, std::int64_t n) {
      F32 d = load_some(row + i, n) - m;
      if (n != F32::kLanes) d = select(first_lanes(n), d, zero());
      return d * d;
    });
    const float rstd = 1.0f / std::sqrt(squares * inverse + a.eps);
    a.mean[r] = mean;
    a.rstd[r] = rstd;
    const F32 s = broadcast(rstd);
    T* const y = a.y + r * C;
    for_each_vector(C, [&](std::int64_t i, std::int64_t n) {
      const F32 hat = (load_some(row + i, n) - m) * s;
      store_some(y + i, fma(hat, load_some(a.gamma + i, n), load_some(a.beta + i, n)), n);
    });
  }
}

inline void layer_norm_fwd(const LayerNormFwd& a, const float* gamma, const float* beta) {
  with_activation("layer_norm_fwd", a.x.dtype, [&](auto t) {
    using T = decltype(t);
    const LayerNormRows<T> rows{a.x.as<T>(), a.residual.as<T>(), a.sum.as<T>(),      a.y.as<T>(), gamma,
                                beta,        a.mean.as<float>(), a.rstd.as<float>(), a.x.cols(),  float(a.eps)};
    const std::int64_t grain = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, a.x.cols()));
    parallel_for(a.x.rows(), grain,
                 [&](std::int64_t begin, std::int64_t end, std::int64_t) { layer_norm_fwd_rows(rows, begin, end); });
  });
}

template <class T>
struct LayerNormGradRows {
  const T *dy, *dsum, *x;
  const float *gamma, *mean, *rstd;
  T* dx;
  std::int64_t columns;
  bool accumulate;
};

// dgamma and dbeta: the sums of this range of rows.
template <class T>
void layer_norm_bwd_rows(const LayerNormGradRows<T>& a, std::int64_t begin, std::int64_t end, float* dgamma,
                         float* dbeta) {
  const std::int64_t C = a.columns;
  const float inverse = 1.0f / float(C);
  std::fill(dgamma, dgamma + C, 0.0f);
  std::fill(dbeta, dbeta + C, 0.0f);
  for (std::int64_t r = begin; r < end; ++r) {
    const T *const dy = a.dy + r * C, *const x = a.x + r * C, *const dsum = a.dsum ? a.dsum + r * C : nullptr;
    T* const dx = a.dx + r * C;
    const F32 m = broadcast(a.mean[r]), s = broadcast(a.rstd[r]);
    F32 g0 = zero(), h0 = zero(), g1 = zero(), h1 = zero();
    bool odd = false;
    for_each_vector(C, [&](std::int64_t i, std::int64_t n) {
      const F32 d = load_some(dy + i, n), hat = (load_some(x + i, n) - m) * s, dh = d * hat;
      store_some(dgamma + i, load_some(dgamma + i, n) + dh, n);
      store_some(dbeta + i, load_some(dbeta + i, n) + d, n);
      const F32 scale = load_some(a.gamma + i, n);
      (odd ? g1 : g0) += d * scale;
      (odd ? h1 : h0) += dh * scale;
      odd = !odd;
    });
    const F32 mean_g = broadcast(reduce_add(g0 + g1) * inverse), mean_h = broadcast(reduce_add(h0 + h1) * inverse);
    for_each_vector(C, [&](std::int64_t i, std::int64_t n) {
      const F32 hat = (load_some(x + i, n) - m) * s;
      F32 d = s * fnma(hat, mean_h, fma(load_some(dy + i, n), load_some(a.gamma + i, n), zero() - mean_g));
      if (dsum) d += load_some(dsum + i, n);
      if (a.accumulate) d += load_some(dx + i, n);
      store_some(dx + i, d, n);
    });
  }
}

inline void layer_norm_bwd_range(const LayerNormBwd& a, const float* gamma, std::int64_t begin, std::int64_t end,
                                 float* partial) {
  with_activation("layer_norm_bwd", a.x.dtype, [&](auto t) {
    using T = decltype(t);
    const LayerNormGradRows<T> rows{a.dy.as<T>(),       a.dsum.as<T>(), a.x.as<T>(), gamma,       a.mean.as<float>(),
                                    a.rstd.as<float>(), a.dx.as<T>(),   a.x.cols(),  a.accumulate};
    layer_norm_bwd_rows(rows, begin, end, partial, partial + a.x.cols());
  });
}

/// to[i] += from[i].
inline void add_floats(float* to, const float* from, std::int64_t n) {
  for_each_vector(
      n, [&](std::int64_t i, std::int64_t m) { store_some(to + i, load_some(to + i, m) + load_some(from + i, m), m); });
}
