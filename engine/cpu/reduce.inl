// engine/cpu/reduce.inl - sums of f32 and bf16 over one chunk, for one instruction set.

// out[c] = sum over rows of x[row, c], in fp32, row after row.
template <class T>
void column_sum_rows(const T* x, std::int64_t rows, std::int64_t width, float* out) {
  for_each_vector(width, [&](std::int64_t c, std::int64_t n) {
    F32 sum = zero();
    for (std::int64_t r = 0; r < rows; ++r) sum += load_some(x + r * width + c, n);
    store_some(out + c, sum, n);
  });
}

// Four sums of one vector each, folded in a fixed order.
template <class T>
double sum_range(const T* x, std::int64_t n) {
  F32 sum[4] = {zero(), zero(), zero(), zero()};
  constexpr std::int64_t step = 4 * F32::kLanes;
  std::int64_t i = 0;
  for (; i + step <= n; i += step)
    for (int v = 0; v < 4; ++v) sum[v] += load(x + i + v * F32::kLanes);
  for_each_vector(n - i, [&](std::int64_t j, std::int64_t m) { sum[0] += load_some(x + i + j, m); });
  return double(reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

// Eight sums in double, one per lane of the index, folded in a fixed order; each product is exact.
template <class A, class B>
double dot_range(const A* a, const B* b, std::int64_t n) {
  double sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (int l = 0; l < 8; ++l) sum[l] += double(float(a[i + l])) * double(float(b[i + l]));
  for (int l = 0; i + l < n; ++l) sum[l] += double(float(a[i + l])) * double(float(b[i + l]));
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}
