// tests/kernels/functions.inl - applies one elementary function of simd.h to an array, for one instruction set.

inline void apply_function(int function, const float* x, float* y, std::int64_t n) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) {
    const F32 v = load_some(x + i, m);
    switch (function) {
      case 0: return store_some(y + i, exp(v), m);
      case 1: return store_some(y + i, tanh(v), m);
      case 2: return store_some(y + i, gelu<GeluKind::erf>(v), m);
      case 3: return store_some(y + i, gelu<GeluKind::tanh>(v), m);
      case 4: return store_some(y + i, gelu_grad<GeluKind::erf>(v), m);
      default: return store_some(y + i, gelu_grad<GeluKind::tanh>(v), m);
    }
  });
}
