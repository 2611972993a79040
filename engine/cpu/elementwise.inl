// engine/cpu/elementwise.inl - sums and conversions of f32 and bf16, for one instruction set. All in fp32.

template <class A, class B>
void cast_range(const A* from, B* to, std::int64_t n) {
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) { store_some(to + i, load_some(from + i, m), m); });
}

template <class A, class B, class C>
void add_range(const A* a, const B* b, C* out, std::int64_t n) {
  for_each_vector(
      n, [&](std::int64_t i, std::int64_t m) { store_some(out + i, load_some(a + i, m) + load_some(b + i, m), m); });
}

template <class X, class Y>
void axpy_range(const X* x, Y* y, float alpha, std::int64_t n) {
  const F32 factor = broadcast(alpha);
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) {
    store_some(y + i, fma(factor, load_some(x + i, m), load_some(y + i, m)), m);
  });
}

template <class X, class Y>
void scale_range(const X* x, Y* y, float alpha, std::int64_t n) {
  const F32 factor = broadcast(alpha);
  for_each_vector(n, [&](std::int64_t i, std::int64_t m) { store_some(y + i, load_some(x + i, m) * factor, m); });
}
