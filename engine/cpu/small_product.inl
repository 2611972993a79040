// engine/cpu/small_product.inl - register-blocked products of matrices that fit the L2 cache, for one instruction set.
//
// c[M, columns] (+)= a b with b row-major and padded with zeros to whole vectors, and any strides in a, whose elements
// are broadcast one by one: a transposed operand costs nothing. A block of kRows x kVectors vectors of c stays in
// registers over the whole inner loop: 25 of the 32 registers of AVX-512, 12 of the 16 of AVX2.

#if EVERGRAD_SIMD == 512
inline constexpr int kRows = 5, kVectors = 5;
#elif EVERGRAD_SIMD == 256
inline constexpr int kRows = 4, kVectors = 3;
#else
inline constexpr int kRows = 4, kVectors = 2;
#endif
inline constexpr std::int64_t kInner = 128;  // rows of b per pass: 5 vectors of them are 40 KiB, mostly in L1

inline std::int64_t padded(std::int64_t n) { return (n + F32::kLanes - 1) / F32::kLanes * F32::kLanes; }

struct Operand {
  const float* at;
  std::int64_t row, inner;  // element (i, k) is at[i * row + k * inner]
};

/// Rows that a later step will read or write, brought into L2 a few at a time between the blocks of a product. They lie
/// far apart, so the processor's own prefetcher does not see them coming.
struct Ahead {
  const char* at = nullptr;
  std::int64_t rows = 0, row = 0;    // how many rows are left, bytes from one to the next
  std::int64_t parts = 1, part = 0;  // pieces of a row, bytes from one to the next
  std::int64_t bytes = 0, pace = 3;  // bytes of a piece, rows per step
  EVERGRAD_INLINE void step() {
    for (std::int64_t i = 0; i < pace && rows > 0; ++i, --rows, at += row)
      for (std::int64_t p = 0; p < parts; ++p)
        for (std::int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(at + p * part + b, 0, 2);
  }
};

template <int R, int V>
void product_block(Operand a, const float* b, std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t inner,
                   bool add) {
  F32 sum[R][V];
  EVERGRAD_UNROLL
  for (int r = 0; r < R; ++r) {
    EVERGRAD_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = zero();
  }
  if (add) {
    EVERGRAD_UNROLL
    for (int r = 0; r < R; ++r) {
      EVERGRAD_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = load(c + r * c_row + v * F32::kLanes);
    }
  }
  const float* p = a.at;
  for (std::int64_t k = 0; k < inner; ++k) {
    F32 row[V];
    EVERGRAD_UNROLL
    for (int v = 0; v < V; ++v) row[v] = load(b + v * F32::kLanes);
    EVERGRAD_UNROLL
    for (int r = 0; r < R; ++r) {
      const F32 x = broadcast(p[r * a.row]);
      EVERGRAD_UNROLL
      for (int v = 0; v < V; ++v) sum[r][v] = fma(x, row[v], sum[r][v]);
    }
    p += a.inner;
    b += b_row;
  }
  EVERGRAD_UNROLL
  for (int r = 0; r < R; ++r) {
    EVERGRAD_UNROLL
    for (int v = 0; v < V; ++v) store(c + r * c_row + v * F32::kLanes, sum[r][v]);
  }
}

template <int V, int R = kRows>
void product_panel(Operand a, const float* b, std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t rows,
                   std::int64_t inner, bool add, Ahead* ahead) {
  for (; rows >= R; rows -= R) {
    if (ahead) ahead->step();
    product_block<R, V>(a, b, b_row, c, c_row, inner, add);
    a.at += R * a.row;
    c += R * c_row;
  }
  if constexpr (R > 1) {
    if (rows > 0) product_panel<V, R - 1>(a, b, b_row, c, c_row, rows, inner, add, ahead);
  }
}

template <int V = kVectors>
void product_vectors(std::int64_t vectors, Operand a, const float* b, std::int64_t b_row, float* c, std::int64_t c_row,
                     std::int64_t rows, std::int64_t inner, bool add, Ahead* ahead) {
  if constexpr (V > 1) {
    if (vectors < V) return product_vectors<V - 1>(vectors, a, b, b_row, c, c_row, rows, inner, add, ahead);
  }
  product_panel<V>(a, b, b_row, c, c_row, rows, inner, add, ahead);
}

/// c (+)= a b; `columns` is a multiple of kLanes.
inline void product(Operand a, const float* b, std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t rows,
                    std::int64_t columns, std::int64_t inner, bool add, Ahead* ahead = nullptr) {
  const std::int64_t vectors = columns / F32::kLanes, panels = (vectors + kVectors - 1) / kVectors;
  for (std::int64_t k = 0; k < inner; k += kInner) {
    const Operand part{a.at + k * a.inner, a.row, a.inner};
    std::int64_t from = 0;
    for (std::int64_t p = 0; p < panels; ++p) {
      const std::int64_t to = vectors * (p + 1) / panels;  // panels of nearly equal width
      product_vectors(to - from, part, b + k * b_row + from * F32::kLanes, b_row, c + from * F32::kLanes, c_row, rows,
                      std::min(kInner, inner - k), add || k > 0, ahead);
      from = to;
    }
  }
}

/// to[rows, padded(columns)] = from[rows, columns] as floats, zeros after the last column.
template <class T>
void copy_rows(const T* from, std::int64_t from_row, float* to, std::int64_t to_row, std::int64_t rows,
               std::int64_t columns) {
  for (std::int64_t r = 0; r < rows; ++r)
    for_each_vector(columns, [&](std::int64_t i, std::int64_t n) {
      store(to + r * to_row + i, load_some(from + r * from_row + i, n));
    });
}

template <std::size_t... I>
EVERGRAD_INLINE F32 interleave_low(F32 a, F32 b, std::index_sequence<I...>) {
  return {__builtin_shufflevector(a.v, b.v, int(I % 2 ? I / 2 + F32::kLanes : I / 2)...)};
}
template <std::size_t... I>
EVERGRAD_INLINE F32 interleave_high(F32 a, F32 b, std::index_sequence<I...>) {
  constexpr int kHalf = F32::kLanes / 2;
  return {__builtin_shufflevector(a.v, b.v, int(I % 2 ? I / 2 + F32::kLanes + kHalf : I / 2 + kHalf)...)};
}

// One square tile: log2(kLanes) rounds of perfect shuffles of row i with row i + kLanes / 2.
template <class T>
void transpose_tile(const T* from, std::int64_t from_row, float* to, std::int64_t to_row, std::int64_t rows,
                    std::int64_t columns) {
  constexpr int kL = F32::kLanes;
  constexpr std::make_index_sequence<std::size_t(kL)> kAll;
  F32 x[kL], y[kL];
  for (int i = 0; i < kL; ++i) x[i] = i < rows ? load_some(from + i * from_row, columns) : zero();
  EVERGRAD_UNROLL
  for (int round = 1; round < kL; round *= 2) {
    EVERGRAD_UNROLL
    for (int i = 0; i < kL / 2; ++i) {
      y[2 * i] = interleave_low(x[i], x[i + kL / 2], kAll);
      y[2 * i + 1] = interleave_high(x[i], x[i + kL / 2], kAll);
    }
    EVERGRAD_UNROLL
    for (int i = 0; i < kL; ++i) x[i] = y[i];
  }
  for (int i = 0; i < columns; ++i) store(to + i * to_row, x[i]);
}

/// to[columns, padded(rows)] = transpose of from[rows, columns] as floats, zeros after the last column.
template <class T>
void transpose(const T* from, std::int64_t from_row, float* to, std::int64_t to_row, std::int64_t rows,
               std::int64_t columns) {
  constexpr std::int64_t kL = F32::kLanes;
  for (std::int64_t r = 0; r < rows; r += kL)
    for (std::int64_t c = 0; c < columns; c += kL)
      transpose_tile(from + r * from_row + c, from_row, to + c * to_row + r, to_row, std::min(kL, rows - r),
                     std::min(kL, columns - c));
}
