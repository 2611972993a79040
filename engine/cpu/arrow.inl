// engine/cpu/arrow.inl - ARROW over one chunk of parameters, for one instruction set. Products of two floats are exact
// in double, and every sum has eight lanes, so that all instruction sets give the same bits.

template <class A, class B>
void dot_chunk(const A* a, const B* b, std::int64_t n, double& out) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int l = 0; l < 8; ++l) sum[l] += double(float(a[i + l])) * double(float(b[i + l]));
  for (int l = 0; i + l < n; ++l) sum[l] += double(float(a[i + l])) * double(float(b[i + l]));
  out = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

template <class From, class To>
void copy_chunk(const From* from, To* to, std::int64_t n) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) { store_some(to + i, load_some(from + i, m), m); });
}

/// u += c * column
template <class T>
void add_column(float* u, float c, const T* column, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) u[i] += c * float(column[i]);
}

inline void scale_chunk(float* u, float factor, const float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) u[i] = factor * x[i];
}

/// x = mu x + factor * y
inline void blend_chunk(float* x, float mu, float factor, const float* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = mu * x[i] + factor * y[i];
}

inline void apply_chunk(float* w, float shrink, float lr, const float* u, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) w[i] = shrink * w[i] - lr * u[i];
}

inline void adam_moments(const ArrowAdam& s, const float* g, float* m, float* v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float gradient = s.clip * g[i];
    m[i] = s.beta1 * m[i] + s.rest1 * gradient;
    v[i] = s.beta2 * v[i] + s.rest2 * gradient * gradient;
  }
}

inline void adam_direction(const ArrowAdam& s, const float* m, const float* v, float* u, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) u[i] = (m[i] * s.correction1) / (std::sqrt(v[i]) * s.correction2 + s.eps);
}
