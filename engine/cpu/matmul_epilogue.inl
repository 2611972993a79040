// engine/cpu/matmul_epilogue.inl - what happens to a finished tile on its way to c, once per instruction set.
//
// The loop runs down columns, one vector wide: the bias is loaded once, and column sums stay in a register.

namespace {

template <Epilogue epilogue, GeluKind kind, class X, class C>
void finish_tile(const Matmul& m, const FinishedTile& t) {
  const std::int64_t width = m.c.cols();
  for_each_vector(t.cols, [&](std::int64_t j, std::int64_t n) {
    [[maybe_unused]] F32 bias = zero(), sum = zero();
    if constexpr (epilogue == Epilogue::bias || epilogue == Epilogue::bias_gelu)
      bias = load_some(static_cast<const X*>(m.bias.data) + t.col + j, n);
    for (std::int64_t i = 0; i < t.rows; ++i) {
      const std::int64_t at = (t.row + i) * width + t.col + j;
      F32 x = load_some(t.data + i * t.stride + j, n);
      if constexpr (epilogue == Epilogue::bias) x += bias;
      if constexpr (epilogue == Epilogue::bias_gelu) {
        x += bias;
        store_some(static_cast<X*>(m.aux.data) + at, x, n);
        x = gelu<kind>(x);
      }
      if constexpr (epilogue == Epilogue::dgelu) {
        x = x * gelu_grad<kind>(load_some(static_cast<const X*>(m.aux.data) + at, n));
        sum += x;
      }
      C* const c = static_cast<C*>(m.c.data) + at;
      store_some(c, m.accumulate ? load_some(c, n) + x : x, n);
    }
    if constexpr (epilogue == Epilogue::dgelu) {
      if (float* const to = t.column_sums ? t.column_sums + t.col + j : nullptr)
        store_some(to, load_some(to, n) + sum, n);
    }
  });
}

template <class X, class C>
EpilogueFn epilogue_of_types(const Matmul& m) {
  const bool erf = m.gelu == GeluKind::erf;
  switch (m.epilogue) {
    case Epilogue::bias: return finish_tile<Epilogue::bias, GeluKind::erf, X, C>;
    case Epilogue::bias_gelu:
      return erf ? finish_tile<Epilogue::bias_gelu, GeluKind::erf, X, C>
                 : finish_tile<Epilogue::bias_gelu, GeluKind::tanh, X, C>;
    case Epilogue::dgelu:
      return erf ? finish_tile<Epilogue::dgelu, GeluKind::erf, X, C>
                 : finish_tile<Epilogue::dgelu, GeluKind::tanh, X, C>;
    default: return finish_tile<Epilogue::none, GeluKind::erf, X, C>;
  }
}

}  // namespace

EpilogueFn epilogue_for(const Matmul& m) {
  if (m.c.dtype == DType::bf16) return epilogue_of_types<bf16, bf16>(m);
  return m.a.dtype == DType::bf16 ? epilogue_of_types<bf16, float>(m) : epilogue_of_types<float, float>(m);
}
