// engine/cpu/crelu.inl - concatenated ReLU and its gradient (see crelu.cpp), for one instruction set.

template <class T>
void crelu_fwd_row(const T* x, T* y, std::int64_t width) {
  for_each_vector(width, [&](std::int64_t i, std::int64_t m) {
    const F32 z = load_some(x + i, m);
    store_some(y + i, select(z < zero(), zero(), z), m);
    store_some(y + width + i, select(zero() < z, zero(), zero() - z), m);
  });
}

template <bool accumulate, class T>
void crelu_bwd_row(const T* x, const T* dy, T* dx, std::int64_t width) {
  for_each_vector(width, [&](std::int64_t i, std::int64_t m) {
    const F32 z = load_some(x + i, m), down = zero() - load_some(dy + width + i, m);
    F32 d = select(zero() < z, load_some(dy + i, m), select(z < zero(), down, zero()));
    if constexpr (accumulate) d += load_some(dx + i, m);
    store_some(dx + i, d, m);
  });
}

inline void crelu_fwd(const CreluFwd& a) {
  with_activation("crelu_fwd", a.x.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t width = a.x.cols();
    parallel_for(a.x.rows(), rows_per_chunk(a.x.rows(), width),
                 [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                   for (std::int64_t r = begin; r < end; ++r)
                     crelu_fwd_row(a.x.as<T>() + r * width, a.y.as<T>() + 2 * r * width, width);
                 });
  });
}

inline void crelu_bwd(const CreluBwd& a) {
  with_activation("crelu_bwd", a.x.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t width = a.x.cols();
    parallel_for(a.x.rows(), rows_per_chunk(a.x.rows(), width),
                 [&](std::int64_t begin, std::int64_t end, std::int64_t) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     const T *const x = a.x.as<T>() + r * width, *const dy = a.dy.as<T>() + 2 * r * width;
                     T* const dx = a.dx.as<T>() + r * width;
                     if (a.accumulate)
                       crelu_bwd_row<true>(x, dy, dx, width);
                     else
                       crelu_bwd_row<false>(x, dy, dx, width);
                   }
                 });
  });
}
