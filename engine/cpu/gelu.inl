// engine/cpu/gelu.inl - GELU, its gradient, and the counters of units (see gelu.cpp), for one instruction set.

inline constexpr std::int64_t kGeluGrain = 16384;  // elements per chunk: 128 KiB of fp32 in and out

template <GeluKind kind, class T>
void gelu_fwd_range(const T* x, T* y, std::int64_t n) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) { store_some(y + i, gelu<kind>(load_some(x + i, m)), m); });
}

template <GeluKind kind, bool accumulate, class T>
void gelu_bwd_range(const T* x, const T* dy, T* dx, std::int64_t n) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) {
    const F32 g = gelu_grad<kind>(load_some(x + i, m)), d = load_some(dy + i, m);
    if constexpr (accumulate)
      store_some(dx + i, fma(d, g, load_some(dx + i, m)), m);
    else
      store_some(dx + i, d * g, m);
  });
}

template <class T>
void gelu_fwd_all(const GeluFwd& a) {
  const T* const x = a.x.as<T>();
  T* const y = a.y.as<T>();
  parallel_for(a.x.size(), kGeluGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    if (a.kind == GeluKind::erf)
      gelu_fwd_range<GeluKind::erf>(x + begin, y + begin, end - begin);
    else
      gelu_fwd_range<GeluKind::tanh>(x + begin, y + begin, end - begin);
  });
}

template <bool accumulate, class T>
void gelu_bwd_all(const GeluBwd& a) {
  const T *const x = a.x.as<T>(), *const dy = a.dy.as<T>();
  T* const dx = a.dx.as<T>();
  parallel_for(a.x.size(), kGeluGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    if (a.kind == GeluKind::erf)
      gelu_bwd_range<GeluKind::erf, accumulate>(x + begin, dy + begin, dx + begin, end - begin);
    else
      gelu_bwd_range<GeluKind::tanh, accumulate>(x + begin, dy + begin, dx + begin, end - begin);
  });
}

inline void gelu_fwd(const GeluFwd& a) {
  with_activation("gelu_fwd", a.x.dtype, [&](auto t) { gelu_fwd_all<decltype(t)>(a); });
}

inline void gelu_bwd(const GeluBwd& a) {
  with_activation("gelu_bwd", a.x.dtype, [&](auto t) {
    if (a.accumulate)
      gelu_bwd_all<true, decltype(t)>(a);
    else
      gelu_bwd_all<false, decltype(t)>(a);
  });
}

// The counters of one chunk of rows, in floats (counts stay exact below 2^24 rows per chunk), kSlots per unit.
inline constexpr int kSlots = 6;  // positive, alive magnitude, alive gradient, sum |gelu|, sum gelu, max gelu

template <GeluKind kind, class T>
void count_units(const T* z, std::int64_t rows, std::int64_t units, float tau, float* partial) {
  const F32 one = broadcast(1.0f), threshold = broadcast(tau);
  for_each_vector(units, [&](std::int64_t i, std::int64_t m) {
    F32 positive = zero(), magnitude = zero(), gradient = zero(), sum_abs = zero(), sum = zero();
    F32 largest = broadcast(-std::numeric_limits<float>::infinity());
    for (std::int64_t r = 0; r < rows; ++r) {
      const F32 x = load_some(z + r * units + i, m), y = gelu<kind>(x), size = abs(y);
      positive += select(zero() < x, one, zero());
      magnitude += select(threshold < size, one, zero());
      gradient += select(threshold < abs(gelu_grad<kind>(x)), one, zero());
      sum_abs += size;
      sum += y;
      largest = max(y, largest);
    }
    store_some(partial + i, positive, m);
    store_some(partial + units + i, magnitude, m);
    store_some(partial + 2 * units + i, gradient, m);
    store_some(partial + 3 * units + i, sum_abs, m);
    store_some(partial + 4 * units + i, sum, m);
    store_some(partial + 5 * units + i, largest, m);
  });
}

inline void count_units_rows(const UnitStatistics& a, std::int64_t begin, std::int64_t rows, float* partial) {
  const std::int64_t units = a.z.cols();
  with_activation("unit_statistics", a.z.dtype, [&](auto t) {
    const auto* const z = a.z.as<decltype(t)>() + begin * units;
    if (a.kind == GeluKind::erf)
      count_units<GeluKind::erf>(z, rows, units, float(a.tau), partial);
    else
      count_units<GeluKind::tanh>(z, rows, units, float(a.tau), partial);
  });
}
