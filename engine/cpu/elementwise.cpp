// engine/cpu/elementwise.cpp - cast, fill, add, axpy, scale_by. f32 and bf16 in vectors of fp32, whatever the mix;
// every other type one element at a time through double. Bound by memory.
#include "engine/cpu/isa.h"
#include "engine/cpu/kernels.h"
#define EVERGRAD_KERNEL_BODY "engine/cpu/elementwise.inl"
#include "engine/cpu/for_each_isa.h"

namespace eg::cpu {
namespace {

constexpr std::int64_t kGrain = 32768;  // elements per chunk

bool vectors(const TensorView& x) { return x.dtype == DType::f32 || x.dtype == DType::bf16; }

void check_sizes(const char* name, const TensorView& a, const TensorView& b) {
  check(a.size() == b.size(), Kind::shape,
        [&] { return cat(name, " on cpu: ", a, " and ", b, " differ in their number of elements"); });
}

/// Calls f with a typed pointer to element `at` of an f32 or bf16 view.
template <class F>
void typed(const TensorView& x, std::int64_t at, F&& f) {
  if (x.dtype == DType::bf16)
    f(static_cast<bf16*>(x.data) + at);
  else
    f(static_cast<float*>(x.data) + at);
}

double value_at(const TensorView& x, std::int64_t i) {
  switch (x.dtype) {
    case DType::f32: return double(static_cast<const float*>(x.data)[i]);
    case DType::bf16: return double(static_cast<const bf16*>(x.data)[i]);
    case DType::i32: return double(static_cast<const std::int32_t*>(x.data)[i]);
    case DType::u8: return double(static_cast<const std::uint8_t*>(x.data)[i]);
    case DType::f64: return static_cast<const double*>(x.data)[i];
  }
  return 0.0;
}

// Towards zero, as a C++ conversion; what does not fit becomes the nearest number that does, NaN becomes 0.
template <class T>
T to_integer(double x) {
  if (x != x) return 0;
  return T(std::clamp(x, double(std::numeric_limits<T>::min()), double(std::numeric_limits<T>::max())));
}

void set_at(const TensorView& x, std::int64_t i, double value) {
  switch (x.dtype) {
    case DType::f32: static_cast<float*>(x.data)[i] = float(value); return;
    case DType::bf16: static_cast<bf16*>(x.data)[i] = bf16(value); return;
    case DType::i32: static_cast<std::int32_t*>(x.data)[i] = to_integer<std::int32_t>(value); return;
    case DType::u8: static_cast<std::uint8_t*>(x.data)[i] = to_integer<std::uint8_t>(value); return;
    case DType::f64: static_cast<double*>(x.data)[i] = value; return;
  }
}

/// set_at(out, i, value(i)) for all i.
template <class Value>
void one_by_one(const TensorView& out, const Value& value) {
  parallel_for(out.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    for (std::int64_t i = begin; i < end; ++i) set_at(out, i, value(i));
  });
}

}  // namespace

void cast(const Cast& c, Stream) {
  check_sizes("cast", c.from, c.to);
  if (c.from.dtype == c.to.dtype) {
    const std::size_t bytes = size_of(c.to.dtype);
    parallel_for(c.to.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      std::memmove(static_cast<std::byte*>(c.to.data) + std::size_t(begin) * bytes,
                   static_cast<const std::byte*>(c.from.data) + std::size_t(begin) * bytes,
                   std::size_t(end - begin) * bytes);
    });
    return;
  }
  if (!vectors(c.from) || !vectors(c.to)) return one_by_one(c.to, [&](std::int64_t i) { return value_at(c.from, i); });
  parallel_for(c.to.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    typed(c.from, begin, [&](auto* from) {
      typed(c.to, begin, [&](auto* to) { EVERGRAD_DISPATCH(cast_range, from, to, end - begin); });
    });
  });
}

void fill(const Fill& f, Stream) {
  const std::size_t bytes = size_of(f.x.dtype);
  alignas(8) std::byte pattern[8]{};
  set_at({pattern, f.x.dtype, {1}}, 0, f.value);
  parallel_for(f.x.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    std::byte* const to = static_cast<std::byte*>(f.x.data) + std::size_t(begin) * bytes;
    const std::size_t all = std::size_t(end - begin) * bytes;
    std::memcpy(to, pattern, bytes);
    for (std::size_t done = bytes; done < all; done *= 2) std::memcpy(to + done, to, std::min(done, all - done));
  });
}

void add(const Add& a, Stream) {
  check_sizes("add", a.a, a.out);
  check_sizes("add", a.b, a.out);
  if (!vectors(a.a) || !vectors(a.b) || !vectors(a.out))
    return one_by_one(a.out, [&](std::int64_t i) { return value_at(a.a, i) + value_at(a.b, i); });
  parallel_for(a.out.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    typed(a.a, begin, [&](auto* x) {
      typed(a.b, begin, [&](auto* y) {
        typed(a.out, begin, [&](auto* out) { EVERGRAD_DISPATCH(add_range, x, y, out, end - begin); });
      });
    });
  });
}

namespace {

void add_scaled(const TensorView& x, const TensorView& y, double alpha) {
  if (!vectors(x) || !vectors(y))
    return one_by_one(y, [&](std::int64_t i) { return value_at(y, i) + alpha * value_at(x, i); });
  parallel_for(y.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    typed(x, begin, [&](auto* from) {
      typed(y, begin, [&](auto* to) { EVERGRAD_DISPATCH(axpy_range, from, to, float(alpha), end - begin); });
    });
  });
}

}  // namespace

void axpy(const Axpy& a, Stream) {
  check_sizes("axpy", a.x, a.y);
  add_scaled(a.x, a.y, a.alpha);
}

void scale_by(const ScaleBy& s, Stream) {
  check_sizes("scale_by", s.x, s.y);
  check(bool(s.factor) && s.factor.size() == 1, Kind::shape,
        [&] { return cat("scale_by on cpu: the factor has to be one number, got ", s.factor); });
  const double factor = value_at(s.factor, 0);
  if (s.accumulate) return add_scaled(s.x, s.y, factor);
  if (!vectors(s.x) || !vectors(s.y)) return one_by_one(s.y, [&](std::int64_t i) { return factor * value_at(s.x, i); });
  parallel_for(s.y.size(), kGrain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
    typed(s.x, begin, [&](auto* from) {
      typed(s.y, begin, [&](auto* to) { EVERGRAD_DISPATCH(scale_range, from, to, float(factor), end - begin); });
    });
  });
}

}  // namespace eg::cpu
