// engine/cpu/matmul.inl - register kernel, packing and epilogues, once per instruction set (for_each_isa.h).
//
// The tile is mr x 2 vectors: 14 x 32 fp32 with 32 registers of AVX-512, 6 x 2 vectors with 16 registers. A step loads
// two vectors of the panel and multiplies them by mr numbers of the sliver. With EVERGRAD_DOT_BF16 (matmul_bf16.cpp) a
// word is a pair of bf16 and a step is vdpbf16ps.

namespace {  // other kernels of the same instruction set may use the same names

#if EVERGRAD_SIMD == 512
constexpr int kMr = 14;
#else
constexpr int kMr = 6;
#endif
constexpr int kLanes = F32::kLanes, kNr = 2 * kLanes;
#if defined(EVERGRAD_DOT_BF16)
constexpr int kPair = 2;
EVERGRAD_INLINE F32 multiply_add(F32 a, F32 b, F32 c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)_mm512_castps_si512(a.v), (__m512bh)_mm512_castps_si512(b.v))};
}
#else
constexpr int kPair = 1;
EVERGRAD_INLINE F32 multiply_add(F32 a, F32 b, F32 c) { return fma(a, b, c); }
#endif

template <int row_step, int word_step, int... i>
EVERGRAD_INLINE void tile_step(F32 (&acc)[kMr][2], const float* a, const float* b, std::integer_sequence<int, i...>) {
  const F32 b0 = load(b), b1 = load(b + kLanes);
  const auto row = [&](F32(&c)[2], float x) __attribute__((always_inline)) {
    const F32 wide = broadcast(x);
    c[0] = multiply_add(wide, b0, c[0]);
    c[1] = multiply_add(wide, b1, c[1]);
  };
  (row(acc[i], a[i * row_step]), ...);
}

template <int... i>
EVERGRAD_INLINE void load_tile(F32 (&acc)[kMr][2], const float* tile, bool overwrite,
                               std::integer_sequence<int, i...>) {
  if (overwrite)
    ((acc[i][0] = zero(), acc[i][1] = zero()), ...);
  else
    ((acc[i][0] = load(tile + i * kNr), acc[i][1] = load(tile + i * kNr + kLanes)), ...);
}

template <int... i>
EVERGRAD_INLINE void store_tile(const F32 (&acc)[kMr][2], float* tile, std::integer_sequence<int, i...>) {
  ((store(tile + i * kNr, acc[i][0]), store(tile + i * kNr + kLanes, acc[i][1])), ...);
}

template <int row_step, int word_step>
void tile_product(std::int64_t words, const float* a, const float* b, float* tile, bool overwrite) {
  constexpr std::make_integer_sequence<int, kMr> rows{};
  F32 acc[kMr][2];
  load_tile(acc, tile, overwrite, rows);
  for (std::int64_t k = 0; k < words; ++k) tile_step<row_step, word_step>(acc, a + k * word_step, b + k * kNr, rows);
  store_tile(acc, tile, rows);
}

// ---- packing ------------------------------------------------------------------------------------------------------

// The word of row p that starts at element k, as bits; elements from `depth` on count as zero.
template <class T>
EVERGRAD_INLINE float word_at(const T* p, std::int64_t k, std::int64_t depth) {
  if constexpr (kPair == 1) {
    return k < depth ? float(p[k]) : 0.0f;
  } else {
    T pair[2]{};
    for (int e = 0; e < 2; ++e)
      if (k + e < depth) pair[e] = p[k + e];
    float word;
    static_assert(sizeof(pair) == sizeof(word) || kPair == 1);
    std::memcpy(&word, pair, sizeof(word));
    return word;
  }
}

// n words of neighbouring columns: element k of each, with element k + 1 in the upper half when there are pairs.
template <class T>
EVERGRAD_INLINE F32 words_across(const T* p, [[maybe_unused]] std::int64_t stride, [[maybe_unused]] bool second,
                                 std::int64_t n) {
#if defined(EVERGRAD_DOT_BF16)
  const __m512i lower = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p));
  if (!second) return {_mm512_castsi512_ps(lower)};
  const __m512i upper = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p + stride));
  return {_mm512_castsi512_ps(_mm512_or_si512(lower, _mm512_slli_epi32(upper, 16)))};
#else
  return load_some(p, n);
#endif
}

// out[word * panel + w], from an operand whose columns w are contiguous.
template <int panel, bool with_sums, class T>
void pack_across(const T* data, std::int64_t stride, const PackRange& r, float* out, [[maybe_unused]] float* sums) {
  constexpr int vectors = (panel + kLanes - 1) / kLanes;
  constexpr std::int64_t ahead = 24;
  F32 sum[vectors];
  for (F32& s : sum) s = zero();
  for (std::int64_t word = 0; word < r.words; ++word) {
    const std::int64_t k = word * kPair;
    for (int v = 0; v < vectors; ++v) {
      const std::int64_t all = std::min<std::int64_t>(kLanes, panel - v * kLanes);
      const std::int64_t n = std::clamp<std::int64_t>(r.width - v * kLanes, 0, all);
      float* const to = out + word * panel + v * kLanes;
      if (k >= r.depth || n == 0) {
        store_some(to, zero(), all);
        continue;
      }
      const T* const p = data + (r.k0 + k) * stride + r.w0 + v * kLanes;
      // Rows far apart defeat the hardware's own prefetching; a late row that does not exist costs nothing.
      for (int e = 0; e < kPair; ++e)
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(p) +
                                                         std::uintptr_t((ahead + e) * stride) * sizeof(T)));
      store_some(to, words_across(p, stride, k + 1 < r.depth, n), all);
      if constexpr (with_sums) {
        for (int e = 0; e < kPair; ++e)
          if (k + e < r.depth) sum[v] += load_some(p + e * stride, n);
      }
    }
  }
  if constexpr (with_sums) {
    for (std::int64_t w = 0; w < r.width; w += kLanes) {
      const std::int64_t n = std::min<std::int64_t>(kLanes, r.width - w);
      store_some(sums + w, load_some(sums + w, n) + sum[w / kLanes], n);
    }
  }
}

// out[word * panel + w], from an operand whose depth is contiguous: a transpose, 16 words at a time so that the lines
// written stay in the innermost cache.
template <int panel, class T>
void pack_transposed(const T* data, std::int64_t stride, const PackRange& r, float* out) {
  constexpr std::int64_t block = 16;
  for (std::int64_t begin = 0; begin < r.words; begin += block) {
    const std::int64_t end = std::min(r.words, begin + block);
    const bool whole = end * kPair <= r.depth && end - begin == block;
    for (std::int64_t w = 0; w < panel; ++w) {
      float* const to = out + begin * panel + w;
      const T* const from = data + (r.w0 + w) * stride + r.k0;
      if (w >= r.width) {
        for (std::int64_t i = 0; i < end - begin; ++i) to[i * panel] = 0.0f;
      } else if (whole) {
        for (std::int64_t i = 0; i < block; ++i)
          to[i * panel] = word_at(from, (begin + i) * kPair, std::numeric_limits<std::int64_t>::max());
      } else {
        for (std::int64_t i = begin; i < end; ++i) to[(i - begin) * panel] = word_at(from, i * kPair, r.depth);
      }
    }
  }
}

// out[w * kSliverStride + word], from an operand whose depth is contiguous: a copy.
template <int panel, class T>
void pack_copy(const T* data, std::int64_t stride, const PackRange& r, float* out) {
  const std::int64_t whole = r.depth / kPair;
  for (std::int64_t w = 0; w < panel; ++w) {
    float* const to = out + w * kSliverStride;
    const T* const from = data + (r.w0 + w) * stride + r.k0;
    std::int64_t word = 0;
    if (w < r.width) {
      if constexpr (kPair == 2) {
        std::memcpy(to, from, std::size_t(whole) * sizeof(float));
      } else {
        for_each_vector(whole, [&](std::int64_t i, std::int64_t n) { store_some(to + i, load_some(from + i, n), n); });
      }
      for (word = whole; word < r.words; ++word) to[word] = word_at(from, word * kPair, r.depth);
    }
    for (; word < r.words; ++word) to[word] = 0.0f;
  }
}

template <int panel, class T>
void pack_panel_of(const Operand& x, const PackRange& r, float* out, float* sums) {
  const T* const data = static_cast<const T*>(x.data);
  if (x.depth_contiguous)
    pack_transposed<panel>(data, x.stride, r, out);
  else if (sums)
    pack_across<panel, true>(data, x.stride, r, out, sums);
  else
    pack_across<panel, false>(data, x.stride, r, out, nullptr);
}

template <int panel>
void pack_panel(const Operand& x, const PackRange& r, float* out, float* sums) {
  if (x.dtype == DType::bf16) return pack_panel_of<panel, bf16>(x, r, out, sums);
#if !defined(EVERGRAD_DOT_BF16)
  pack_panel_of<panel, float>(x, r, out, sums);
#endif
}

template <int panel>
void pack_rows(const Operand& x, const PackRange& r, float* out, float*) {
  if (x.dtype == DType::bf16) return pack_copy<panel>(static_cast<const bf16*>(x.data), x.stride, r, out);
#if !defined(EVERGRAD_DOT_BF16)
  pack_copy<panel>(static_cast<const float*>(x.data), x.stride, r, out);
#endif
}

}  // namespace

const TileKernel& tile_kernel() {
  static const TileKernel kernel{.mr = kMr,
                                 .nr = kNr,
                                 .elements_per_word = kPair,
                                 .by_rows = tile_product<int(kSliverStride), 1>,
                                 .by_words = tile_product<1, kMr>,
                                 .pack_rows = pack_rows<kMr>,
                                 .pack_words = pack_panel<kMr>,
                                 .pack_panel = pack_panel<kNr>};
  return kernel;
}
