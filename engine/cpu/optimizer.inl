// engine/cpu/optimizer.inl - one pass over the flat arena per update; loops without branches, which the compiler turns
// into the widest vectors of the region they are compiled in.

template <class G>
void sum_of_squares(const G* grad, std::int64_t n, double& sum) {
  // Sixteen partial sums in double: the order of additions does not depend on the vector width.
  double partial[16] = {};
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int lane = 0; lane < 16; ++lane) {
      const double g = double(float(grad[i + lane]));
      partial[lane] += g * g;
    }
  for (; i < n; ++i) partial[i % 16] += double(float(grad[i])) * double(float(grad[i]));
  sum = 0.0;
  for (const double p : partial) sum += p;
}

inline void adam_range(const AdamStep& s, float* w, const float* g, float* m, float* v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float gradient = s.clip * g[i] + s.coupled * w[i];
    const float moment = s.beta1 * m[i] + s.rest1 * gradient, square = s.beta2 * v[i] + s.rest2 * gradient * gradient;
    m[i] = moment;
    v[i] = square;
    // The direction first: ARROW's warm-up (arrow.inl), which has it apart from the rate, then gives the same bits.
    const float direction = (moment * s.correction1) / (std::sqrt(square) * s.correction2 + s.eps);
    w[i] = s.shrink * w[i] - s.lr * direction;
  }
}

inline void sgd_range(const SgdStep& s, float* w, const float* g, float* b, std::int64_t n) {
  if (!b) {
    for (std::int64_t i = 0; i < n; ++i) w[i] = s.shrink * w[i] - s.lr * (s.clip * g[i] + s.coupled * w[i]);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const float d = s.clip * g[i] + s.coupled * w[i];
    const float momentum = s.first ? d : s.mu * b[i] + s.keep * d;
    b[i] = momentum;
    w[i] = s.shrink * w[i] - s.lr * (s.nesterov ? d + s.mu * momentum : momentum);
  }
}

inline void narrow_range(const float* w, bf16* out, std::int64_t n) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) { store_some(out + i, load_some(w + i, m), m); });
}

inline void ema_range(float* average, const float* w, float decay, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) average[i] = decay * average[i] + (1.0f - decay) * w[i];
}
