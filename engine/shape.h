// engine/shape.h - extents of a tensor, row-major, up to six axes.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <ostream>

#include "engine/error.h"

namespace eg {

/// The extents of a tensor, outermost first; a value type without allocation.
class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) {
    check(dims.size() <= kMaxRank, Kind::shape, [&] { return cat("a shape has at most 6 axes, got ", dims.size()); });
    for (const std::int64_t d : dims) push_back(d);
  }
  void push_back(std::int64_t extent) {
    check(extent >= 0, Kind::shape, [&] { return cat("a shape cannot hold the negative extent ", extent); });
    check(rank_ < kMaxRank, Kind::shape, [] { return std::string("a shape has at most 6 axes"); });
    dims_[std::size_t(rank_++)] = extent;
  }
  int rank() const { return rank_; }
  /// Extent of axis i; negative i counts from the end.
  std::int64_t operator[](int i) const { return dims_[std::size_t(i < 0 ? i + rank_ : i)]; }
  std::int64_t& operator[](int i) { return dims_[std::size_t(i < 0 ? i + rank_ : i)]; }
  /// Number of elements; throws Error{shape} when it does not fit 63 bits.
  std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank_; ++i) {
      check(dims_[std::size_t(i)] == 0 || n <= std::numeric_limits<std::int64_t>::max() / dims_[std::size_t(i)],
            Kind::shape, [] { return std::string("a shape's element count overflows 63 bits"); });
      n *= dims_[std::size_t(i)];
    }
    return n;
  }
  /// Product of all extents but the last; 1 for rank 0 and 1.
  std::int64_t rows() const {
    std::int64_t n = 1;
    for (int i = 0; i + 1 < rank_; ++i) n *= dims_[std::size_t(i)];
    return n;
  }
  /// The last extent; 1 for rank 0.
  std::int64_t cols() const { return rank_ ? dims_[std::size_t(rank_ - 1)] : 1; }
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i)
      if (dims_[std::size_t(i)] != o.dims_[std::size_t(i)]) return false;
    return true;
  }
  const std::int64_t* begin() const { return dims_.data(); }
  const std::int64_t* end() const { return dims_.data() + rank_; }

 private:
  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& o, const Shape& s) {
  o << '[';
  for (int i = 0; i < s.rank(); ++i) o << (i ? "," : "") << s[i];
  return o << ']';
}

}  // namespace eg
