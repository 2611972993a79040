// engine/reference/reduce.cpp - sums.
//
//   column_sum  out[c] (+)= sum over r of x[r,c]        x [R,C], out [C]
//   mean        out[0] = scale / n  sum over i of x[i]  nothing to average (n = 0) gives 0
//   dot         out[0] = sum over i of a[i] b[i]
#include "engine/reference/kernels.h"
#include "engine/reference/values.h"

namespace eg::reference {

void column_sum(const ColumnSum& a, Stream) {
  const std::int64_t rows = a.x.rows(), columns = a.x.cols();
  for (std::int64_t c = 0; c < columns; ++c) {
    double sum = 0.0;
    for (std::int64_t r = 0; r < rows; ++r) sum += get(a.x, r * columns + c);
    put(a.out, c, sum, a.accumulate);
  }
}

void mean(const Mean& a, Stream) {
  const std::int64_t n = a.x.size();
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) sum += get(a.x, i);
  put(a.out, 0, n == 0 ? 0.0 : a.scale / double(n) * sum);
}

void dot(const Dot& a, Stream) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < a.a.size(); ++i) sum += get(a.a, i) * get(a.b, i);
  put(a.out, 0, sum);
}

}  // namespace eg::reference
