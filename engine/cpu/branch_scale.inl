// engine/cpu/branch_scale.inl - scaling of a residual branch (see branch_scale.cpp), for one instruction set.

// Rows [begin, end) of y[r, c] = x[r, c] scale[c] mask[r / tokens]; scale and mask may be null.
template <class T>
void branch_scale_rows(const T* x, const float* scale, const float* mask, T* y, std::int64_t tokens,
                       std::int64_t columns, std::int64_t begin, std::int64_t end, bool accumulate) {
  for (std::int64_t r = begin; r < end; ++r) {
    const F32 m = broadcast(mask ? mask[r / tokens] : 1.0f);
    const T* const from = x + r * columns;
    T* const to = y + r * columns;
    for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
      F32 v = load_some(from + i, n);
      if (scale) v *= load_some(scale + i, n);
      v *= m;
      if (accumulate) v += load_some(to + i, n);
      store_some(to + i, v, n);
    });
  }
}

// sum[c] = sum over rows of dy[r, c] x[r, c] mask[r / tokens].
template <class T>
void branch_scale_sums(const T* x, const T* dy, const float* mask, std::int64_t tokens, std::int64_t columns,
                       std::int64_t begin, std::int64_t end, float* sum) {
  std::fill(sum, sum + columns, 0.0f);
  for (std::int64_t r = begin; r < end; ++r) {
    const F32 m = broadcast(mask ? mask[r / tokens] : 1.0f);
    for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
      const F32 d = load_some(dy + r * columns + i, n) * m;
      store_some(sum + i, fma(d, load_some(x + r * columns + i, n), load_some(sum + i, n)), n);
    });
  }
}

inline void branch_scale_fwd_range(const BranchScaleFwd& a, const float* scale, std::int64_t tokens, std::int64_t begin,
                                   std::int64_t end) {
  with_activation("branch_scale_fwd", a.x.dtype, [&](auto t) {
    using T = decltype(t);
    branch_scale_rows(a.x.as<T>(), scale, a.mask.as<float>(), a.y.as<T>(), tokens, a.x.cols(), begin, end, false);
  });
}

inline void branch_scale_bwd_range(const BranchScaleBwd& a, const float* scale, std::int64_t tokens, std::int64_t begin,
                                   std::int64_t end, float* partial) {
  with_activation("branch_scale_bwd", a.dy.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t columns = a.dy.cols();
    const float* const mask = a.mask.as<float>();
    if (a.dscale) branch_scale_sums(a.x.as<T>(), a.dy.as<T>(), mask, tokens, columns, begin, end, partial);
    if (a.dx) branch_scale_rows(a.dy.as<T>(), scale, mask, a.dx.as<T>(), tokens, columns, begin, end, a.accumulate);
  });
}
