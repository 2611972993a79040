// engine/cpu/tokens.inl - sequences of tokens and their pooling (see tokens.cpp), for one instruction set.

// to[i] (+)= a[i] + b[i]; b may be null.
template <class T>
void add_row(const T* a, const T* b, T* to, std::int64_t columns, bool accumulate) {
  for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
    F32 v = load_some(a + i, n);
    if (b) v += load_some(b + i, n);
    if (accumulate) v += load_some(to + i, n);
    store_some(to + i, v, n);
  });
}

inline void tokens_fwd_image(const TokensFwd& a, std::int64_t image) {
  with_activation("tokens_fwd", a.out.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t tokens = a.out.dim(1), C = a.out.dim(2), n = a.patches.dim(1), prefix = tokens - n;
    const std::int64_t skip = a.pos ? tokens - a.pos.rows() : 0;  // leading tokens without a position
    const T* const patches = a.patches.as<T>() + image * n * C;
    for (std::int64_t i = 0; i < tokens; ++i) {
      const T* const from = i < prefix ? a.prefix.as<T>() + i * C : patches + (i - prefix) * C;
      add_row(from, a.pos && i >= skip ? a.pos.as<T>() + (i - skip) * C : nullptr,
              a.out.as<T>() + (image * tokens + i) * C, C, false);
    }
  });
}

inline void tokens_bwd_image(const TokensBwd& a, std::int64_t image) {
  with_activation("tokens_bwd", a.dout.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t tokens = a.dout.dim(1), n = a.dpatches.dim(1), C = a.dout.dim(2);
    const T* const from = a.dout.as<T>() + (image * tokens + tokens - n) * C;
    add_row<T>(from, nullptr, a.dpatches.as<T>() + image * n * C, n * C, a.accumulate);
  });
}

/// sum[c] = sum over images of dout[image, token, c], in the order of the images.
inline void sum_over_images(const TensorView& dout, std::int64_t token, float* sum) {
  const std::int64_t images = dout.dim(0), tokens = dout.dim(1), C = dout.dim(2);
  with_activation("tokens_bwd", dout.dtype, [&](auto t) {
    const auto* const from = dout.as<decltype(t)>() + token * C;
    for_each_vector(C, [&](std::int64_t i, std::int64_t n) {
      F32 s = zero();
      for (std::int64_t b = 0; b < images; ++b) s += load_some(from + b * tokens * C + i, n);
      store_some(sum + i, s, n);
    });
  });
}

inline void pool_fwd_image(const PoolFwd& a, std::int64_t image) {
  with_activation("pool_fwd", a.x.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t C = a.x.dim(2);
    const T* const x = a.x.as<T>() + (image * a.x.dim(1) + a.first) * C;
    T* const out = a.out.as<T>() + image * C;
    const F32 count = broadcast(float(a.count));
    for_each_vector(C, [&](std::int64_t i, std::int64_t n) {
      F32 s = load_some(x + i, n);
      for (std::int64_t token = 1; token < a.count; ++token) s += load_some(x + token * C + i, n);
      store_some(out + i, a.count == 1 ? s : s / count, n);
    });
  });
}

inline void pool_bwd_image(const PoolBwd& a, std::int64_t image) {
  with_activation("pool_bwd", a.dx.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t tokens = a.dx.dim(1), C = a.dx.dim(2);
    const T* const dout = a.dout.as<T>() + image * C;
    const F32 count = broadcast(float(a.count));
    for (std::int64_t token = 0; token < tokens; ++token) {
      T* const dx = a.dx.as<T>() + (image * tokens + token) * C;
      const bool pooled = token >= a.first && token < a.first + a.count;
      if (!pooled && a.accumulate) continue;
      for_each_vector(C, [&](std::int64_t i, std::int64_t n) {
        F32 v = pooled ? load_some(dout + i, n) / count : zero();
        if (a.accumulate) v += load_some(dx + i, n);
        store_some(dx + i, v, n);
      });
    }
  });
}
