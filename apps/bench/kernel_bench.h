// apps/bench/kernel_bench.h - times the kernels of one training step at the shapes of one model.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/kernels.h"

namespace eg {

/// One row of the table. flops and bytes are what the mathematics needs, counted from shapes: each operand once.
struct BenchRow {
  std::string name;
  double milliseconds = 0.0;  // median
  double flops = 0.0, bytes = 0.0;
  double ceiling_share = 0.0;  // attainable time (the slower of arithmetic and memory) over measured time
  std::string bound;           // "compute" or "memory": which of the two is slower at best
};

struct BenchShape {
  std::int64_t batch = 64, tokens = 65, dim = 192, heads = 3, hidden = 768, classes = 100, patch_values = 48;
  std::int64_t parameters = 5'400'000;
};

/// Median time of `body` in milliseconds over at least `seconds` and at least 5 calls, after one warm-up call.
double median_ms(const std::function<void()>& body, double seconds);

/// Every kernel that one step of this shape uses whose name contains `filter`.
std::vector<BenchRow> bench_kernels(Device device, DType activation, const BenchShape& shape, const std::string& filter,
                                    double seconds_each);

}  // namespace eg
