// engine/cpu/matmul_bf16.cpp - bf16 products by vdpbf16ps and by AMX tiles. Both add pairs of products in fp32.
//
// vdpbf16ps and tdpbf16ps differ from fp32 arithmetic in two ways that stay far inside the tolerance of a bf16 product:
// numbers below the smallest normal fp32 number (1.2e-38) count as zero, on input and output, and the two products of a
// pair are added one after the other, rounding to nearest each time, whatever the rounding mode in force.
#include "engine/cpu/matmul.h"

#if defined(__x86_64__)

#include <utility>

#include "engine/cpu/isa.h"

#define EVERGRAD_SIMD 512
#define EVERGRAD_DOT_BF16 1
#if defined(__clang__)
#pragma clang attribute push(                                                                            \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,amx-tile,amx-bf16")
#endif
namespace eg::cpu::dot {
#include "engine/cpu/simd.h"
// In this order: the kernel is written in the vectors of simd.h.

#include "engine/cpu/matmul.inl"

// ---- AMX: a tile register holds 16 rows of 16 words; the kernel is 2 x 2 of them. Slivers are always stored row by
// row, so `a` with contiguous width is transposed while it is packed.

namespace {

constexpr int kAmx = 32;
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14]{};
  std::uint16_t row_bytes[16]{64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16]{16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

void amx_begin() {
  // Static, because compilers see the intrinsic read only its first bytes and drop stores to a local.
  static constexpr TileConfig config{};
  _tile_loadconfig(&config);
}
void amx_end() { _tile_release(); }

void amx_product(std::int64_t words, const float* a, const float* b, float* tile, bool overwrite) {
  constexpr std::int64_t row = kSliverStride * 4, line = kAmx * 4;
  float* const lower = tile + 16 * kAmx;
  if (overwrite) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, tile, line);
    _tile_loadd(1, tile + 16, line);
    _tile_loadd(2, lower, line);
    _tile_loadd(3, lower + 16, line);
  }
  for (std::int64_t k = 0; k < words; k += 16) {
    _tile_loadd(4, a + k, row);
    _tile_loadd(6, b + k * kAmx, line);
    _tile_loadd(7, b + k * kAmx + 16, line);
    _tile_loadd(5, a + 16 * kSliverStride + k, row);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, tile, line);
  _tile_stored(1, tile + 16, line);
  _tile_stored(2, lower, line);
  _tile_stored(3, lower + 16, line);
}

// As pack_rows, for an operand whose width is contiguous. Works through a block of words in the other order.
void pack_rows_across(const Operand& x, const PackRange& r, float* out, float* sums) {
  constexpr std::int64_t block = 64;
  alignas(64) float across[block * kAmx];
  for (std::int64_t begin = 0; begin < r.words; begin += block) {
    const std::int64_t words = std::min(block, r.words - begin);
    const PackRange part{r.w0, r.width, r.k0 + 2 * begin, std::max<std::int64_t>(0, r.depth - 2 * begin), words};
    pack_panel<kAmx>(x, part, across, sums);
    for (std::int64_t w = 0; w < kAmx; ++w)
      for (std::int64_t i = 0; i < words; ++i)
        std::memcpy(out + w * kSliverStride + begin + i, across + i * kAmx + w, sizeof(float));
  }
}

}  // namespace

const TileKernel& amx_tile_kernel() {
  static_assert(kNr == kAmx && kDepthBlock % 16 == 0);
  static const TileKernel kernel{.mr = kAmx,
                                 .nr = kAmx,
                                 .elements_per_word = 2,
                                 .word_multiple = 16,
                                 .by_rows = amx_product,
                                 .by_words = amx_product,
                                 .pack_rows = pack_rows<kAmx>,
                                 .pack_words = pack_rows_across,
                                 .pack_panel = pack_panel<kAmx>,
                                 .begin = amx_begin,
                                 .end = amx_end};
  return kernel;
}

}  // namespace eg::cpu::dot
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace eg::cpu {

const TileKernel& dot_kernel() { return dot::tile_kernel(); }
const TileKernel& amx_kernel() { return dot::amx_tile_kernel(); }

}  // namespace eg::cpu

#endif  // __x86_64__
