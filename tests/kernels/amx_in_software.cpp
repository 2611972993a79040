// tests/kernels/amx_in_software.cpp - engine/cpu/matmul_bf16.cpp once more, on tile registers made of memory.
//
// Follows the operation sections of the tile instructions in Intel's architecture manual (volume 2): eight registers of
// 16 rows of 64 bytes, shaped by the configuration; loading clears what it does not fill; an unconfigured register must
// not be touched. What it proves is the packing and the tiling, not the hardware.
#include "tests/kernels/amx_in_software.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "engine/cpu/isa.h"
#include "engine/parallel.h"

namespace software {

struct Tile {
  std::uint8_t bytes[16][64];
};
struct Configuration {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};
struct TileUnit {
  Configuration config;  // palette 0: none is loaded
  Tile tiles[8];
};
inline thread_local TileUnit unit{};

inline Tile& tile(int n) {
  if (unit.config.palette != 1 || n < 0 || n > 7 || unit.config.rows[n] == 0) {
    std::fprintf(stderr, "tile register %d is used without a configuration\n", n);
    std::abort();
  }
  return unit.tiles[n];
}
inline void load_config(const void* from) { std::memcpy(&unit.config, from, sizeof(Configuration)); }
inline void release() { unit = {}; }
inline void zero(int n) { tile(n) = {}; }
inline void load(int n, const void* from, std::int64_t stride) {
  Tile& t = tile(n) = {};
  for (int r = 0; r < unit.config.rows[n]; ++r)
    std::memcpy(t.bytes[r], static_cast<const char*>(from) + r * stride, unit.config.row_bytes[n]);
}
inline void store(int n, void* to, std::int64_t stride) {
  for (int r = 0; r < unit.config.rows[n]; ++r)
    std::memcpy(static_cast<char*>(to) + r * stride, tile(n).bytes[r], unit.config.row_bytes[n]);
}

template <class T>
T element(const Tile& t, int row, int at) {
  T value;
  std::memcpy(&value, t.bytes[row] + at * int(sizeof(T)), sizeof(T));
  return value;
}
/// sum[m][n] += a[m][2k] b[k][2n], then += a[m][2k+1] b[k][2n+1], for k in order.
inline void dot_bf16(int sum, int a, int b) {
  Tile& s = tile(sum);
  for (int m = 0; m < unit.config.rows[sum]; ++m)
    for (int k = 0; k < unit.config.row_bytes[a] / 4; ++k)
      for (int n = 0; n < unit.config.row_bytes[sum] / 4; ++n) {
        float value = element<float>(s, m, n);
        for (int pair = 0; pair < 2; ++pair)
          value +=
              float(element<eg::bf16>(tile(a), m, 2 * k + pair)) * float(element<eg::bf16>(tile(b), k, 2 * n + pair));
        std::memcpy(s.bytes[m] + 4 * n, &value, sizeof value);
      }
}

}  // namespace software

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12's own header starts undefined vectors from themselves
#endif
#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(from) software::load_config(from)
#define _tile_release() software::release()
#define _tile_zero(n) software::zero(n)
#define _tile_loadd(n, from, stride) software::load(n, from, stride)
#define _tile_stored(n, to, stride) software::store(n, to, stride)
#define _tile_dpbf16ps(sum, a, b) software::dot_bf16(sum, a, b)
#define dot dot_in_software
#define dot_kernel vdpbf16ps_of_the_test
#define amx_kernel amx_of_the_test
#include "engine/cpu/matmul_bf16.cpp"

namespace eg::cpu {
const TileKernel& amx_in_software() { return amx_of_the_test(); }
}  // namespace eg::cpu

#endif  // __x86_64__
