// engine/cpu/prompt.inl - a pool of prompts (see prompt.cpp), for one instruction set.

template <class T>
float dot_of(const T* a, const T* b, std::int64_t count) {
  F32 s = zero();
  for_each_vector(count, [&](std::int64_t i, std::int64_t n) { s = fma(load_some(a + i, n), load_some(b + i, n), s); });
  return reduce_add(s);
}

/// scale[r] = 1 / |x[r]| for the rows [begin, end).
inline void inverse_norms(const TensorView& x, const TensorView& scale, std::int64_t begin, std::int64_t end) {
  with_activation("prompt_match_fwd", x.dtype, [&](auto t) {
    const std::int64_t C = x.cols();
    for (std::int64_t r = begin; r < end; ++r) {
      const auto* const row = x.as<decltype(t)>() + r * C;
      scale.as<float>()[r] = 1.0f / std::sqrt(dot_of(row, row, C) + 1e-12f);
    }
  });
}

inline void prompt_cosines(const PromptMatchFwd& a, std::int64_t image) {
  inverse_norms(a.query, a.query_scale, image, image + 1);
  with_activation("prompt_match_fwd", a.query.dtype, [&](auto t) {
    using T = decltype(t);
    const std::int64_t C = a.query.dim(1), M = a.keys.dim(0);
    const float scale = a.query_scale.as<float>()[image];
    for (std::int64_t m = 0; m < M; ++m)
      a.cosine.as<float>()[image * M + m] =
          dot_of(a.query.as<T>() + image * C, a.keys.as<T>() + m * C, C) * scale * a.key_scale.as<float>()[m];
  });
}

/// sum += factor x[at .. at + columns).
inline void add_row(const TensorView& x, std::int64_t at, float factor, float* sum, std::int64_t columns) {
  with_activation("prompt_match_bwd", x.dtype, [&](auto t) {
    const auto* const row = x.as<decltype(t)>() + at;
    for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
      store_some(sum + i, fma(broadcast(factor), load_some(row + i, n), load_some(sum + i, n)), n);
    });
  });
}

/// sum = outer (sum + pull keys[at .. at + columns)).
inline void key_gradient(const TensorView& keys, std::int64_t at, float pull, float outer, float* sum,
                         std::int64_t columns) {
  add_row(keys, at, pull, sum, columns);
  for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
    store_some(sum + i, broadcast(outer) * load_some(sum + i, n), n);
  });
}
