// cuda/kernels/layer_norm.cuh - eight neighbours of one row in registers, and sums over the threads that share a row.
//
// operand.cuh asks for the type at every access, and a warp then waits for one load before it sends the next. Where the
// rate of memory decides, the type is a template argument: all loads of a row are on their way before the first value
// is needed.
#pragma once
#include "cuda/kernels/operand.cuh"

namespace eg::EVERGRAD_BACKEND {

#if EVERGRAD_HAS_DEVICE_WORDS

/// Eight neighbours as memory holds them: four words of bf16, eight of fp32. Words, because what is kept as 16-bit
/// numbers is taken apart and put together again at every branch.
template <class T>
struct Pack {
  static constexpr int kParts = int(kPack * sizeof(T) / 16);
  Vec<std::uint32_t, 4> part[kParts];
};

template <class T>
__device__ __forceinline__ Pack<T> load_raw(const Operand& o, std::int64_t i) {
  Pack<T> raw;
  EVERGRAD_UNROLL
  for (int k = 0; k < Pack<T>::kParts; ++k)
    raw.part[k] = load_vec<Vec<std::uint32_t, 4>>(static_cast<const T*>(o.data) + i + k * int(16 / sizeof(T)));
  return raw;
}
template <class T>
__device__ __forceinline__ void store_raw(const Operand& o, std::int64_t i, const Pack<T>& raw) {
  const std::int64_t first = i * std::int64_t(sizeof(T)) / 4;  // in words
  EVERGRAD_UNROLL
  for (int k = 0; k < Pack<T>::kParts; ++k) store_vec(static_cast<std::uint32_t*>(o.data) + first + 4 * k, raw.part[k]);
}

__device__ __forceinline__ void unpack(const Pack<bf16>& raw, float (&v)[kPack]) {
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack / 2; ++k) unpack_bf16(raw.part[0].v[k], v[2 * k], v[2 * k + 1]);
}
__device__ __forceinline__ void unpack(const Pack<float>& raw, float (&v)[kPack]) {
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) v[k] = __builtin_bit_cast(float, raw.part[k / 4].v[k % 4]);
}
__device__ __forceinline__ void pack(const float (&v)[kPack], Pack<bf16>& raw) {
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack / 2; ++k) raw.part[0].v[k] = pack_bf16(v[2 * k], v[2 * k + 1]);
}
__device__ __forceinline__ void pack(const float (&v)[kPack], Pack<float>& raw) {
  EVERGRAD_UNROLL
  for (int k = 0; k < kPack; ++k) raw.part[k / 4].v[k % 4] = __builtin_bit_cast(std::uint32_t, v[k]);
}

/// Column of pack q of the lane-th of kLanes threads that share a row: neighbours read neighbours.
template <int kLanes>
__device__ __forceinline__ int column_of(int q, int lane) {
  return (q * kLanes + lane) * kPack;
}
/// One thread's packs of a row; zeros beyond its end, and everywhere when the array is absent: a branch around the
/// loads would hold them back until the ones before have arrived.
template <int kLanes, class T, int kPacks>
__device__ __forceinline__ void load_row(const Operand& o, std::int64_t first, int lane, int columns,
                                         Pack<T> (&row)[kPacks]) {
  const int end = o.data ? columns : 0;
  EVERGRAD_UNROLL
  for (int q = 0; q < kPacks; ++q) {
    row[q] = {};
    if (column_of<kLanes>(q, lane) < end) row[q] = load_raw<T>(o, first + column_of<kLanes>(q, lane));
  }
}

/// Sum over the threads that share a row: a warp, or the whole block. All of them get it, in a fixed order.
template <int kLanes>
__device__ __forceinline__ float row_sum(float v) {
  if constexpr (kLanes == kWarp)
    return warp_sum(v);
  else
    return block_sum<kLanes>(v);
}

#endif  // EVERGRAD_HAS_DEVICE_WORDS

}  // namespace eg::EVERGRAD_BACKEND
