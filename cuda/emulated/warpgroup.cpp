// cuda/emulated/warpgroup.cpp - the words of cuda/wgmma.cuh: products of four warps that run while the threads go on.
//
// A GPU reads the operands at any time between the issue of a product and the end of the wait for its group, and writes the
// sums at any time in between. Here the operands are read at the issue, and their bytes are compared when the wait ends: what
// arrives too late is missing, what is overwritten too early is a fault. The sums appear at the end of the wait, and are NaN
// until then. A warp computes its 16 rows when its own lanes have met; that all four warps of a warpgroup took part in every
// product is looked at when the block ends.
#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "cuda/emulated/block.h"
#include "cuda/emulated/place.h"
#include "cuda/emulated/words.h"
#include "engine/error.h"

namespace eg::emulated {

void count_tensor_core_products(std::uint64_t n) noexcept;  // words.cpp

namespace {

constexpr int kDepth = 16, kWarpRows = 16, kWarpgroup = 128;

Block& block() { return *running_block(); }

struct ProductIn {
  float* d;
  bool add;
  Operands operands;
};

float value_of(const char* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, 2);
  return std::bit_cast<float>(std::uint32_t(bits) << 16);
}

/// Calls f(address, mn, k, along k) for every 16 bytes that a product reads of rows (or columns) first .. first + count - 1.
template <class F>
void for_each_piece(std::uint64_t descriptor, bool transposed, int first, int count, const char* what, bool at_issue,
                    const Operands& o, const F& f) {
  const std::size_t begin = std::size_t(descriptor & 0x3fff) << 4, panel = std::size_t(descriptor >> 16 & 0x3fff) << 4,
                    eight = std::size_t(descriptor >> 32 & 0x3fff) << 4;
  const auto piece = [&](std::size_t at, int mn, int k) {
    at ^= (at >> 7 & 7) << 4;
    f(block().product_operand(at, what, at_issue, o.file, o.line), mn, k);
  };
  if (transposed)
    for (int k = 0; k < kDepth; ++k)
      for (int mn = first; mn < first + count; mn += 8)
        piece(
            begin + std::size_t(mn / 64) * panel + std::size_t(k / 8) * eight + std::size_t(k % 8 * 128 + mn % 64 * 2),
            mn, k);
  else
    for (int mn = first; mn < first + count; ++mn)
      for (int k = 0; k < kDepth; k += 8)
        piece(begin + std::size_t(mn / 8) * eight + std::size_t(mn % 8 * 128 + k * 2), mn, k);
}

/// Reads both operands of a warp; f(true, ...) for a, f(false, ...) for b. Returns a hash of their bytes.
template <class F>
std::uint64_t read_operands(const Operands& o, int first_thread, bool at_issue, const F& f) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  const auto visit = [&](bool of_a) {
    return [&, of_a](const char* p, int mn, int k) {
      std::uint64_t words[2];
      std::memcpy(words, p, 16);
      for (const std::uint64_t w : words) hash = (hash ^ w) * 0x100000001b3ull, hash ^= hash >> 29;
      if (watcher) watcher->access(first_thread, p, 16, false, o.code);
      f(of_a, p, mn, k);
    };
  };
  for_each_piece(o.a, o.a_transposed, first_thread % kWarpgroup / 32 * kWarpRows, kWarpRows, "a", at_issue, o,
                 visit(true));
  for_each_piece(o.b, o.b_transposed, 0, o.cols, "b", at_issue, o, visit(false));
  return hash;
}

bool same(const Operands& x, const Operands& y) {
  return x.a == y.a && x.b == y.b && x.cols == y.cols && x.a_transposed == y.a_transposed &&
         x.b_transposed == y.b_transposed;
}

void compute_product(Deposit* lanes, unsigned) {
  Block& b = block();
  const int first = b.current() / 32 * 32;
  ProductIn in;
  std::memcpy(&in, lanes[0].in, sizeof in);
  for (int lane = 1; lane < 32; ++lane) {
    ProductIn other;
    std::memcpy(&other, lanes[lane].in, sizeof other);
    if (!same(in.operands, other.operands) || in.add != other.add)
      b.fault(cat("warpgroup_mma: lanes 0 and ", lane, " of a warp give different arguments"), in.operands.file,
              in.operands.line);
  }
  Operands& o = in.operands;
  for (const std::uint64_t descriptor : {o.a, o.b})
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
      b.fault("warpgroup_mma: a descriptor that panel_descriptor() did not make", o.file, o.line);
  static thread_local float a[kWarpRows][kDepth], x[kDepth][256], sums[kWarpRows][256];
  const int row = first % kWarpgroup / 32 * kWarpRows;
  o.hash = read_operands(o, first, true, [&](bool of_a, const char* p, int mn, int k) {
    for (int i = 0; i < 8; ++i) {
      const float v = value_of(p + 2 * i);
      if (of_a && o.a_transposed) a[mn - row + i][k] = v;
      if (of_a && !o.a_transposed) a[mn - row][k + i] = v;
      if (!of_a && o.b_transposed) x[k][mn + i] = v;
      if (!of_a && !o.b_transposed) x[k + i][mn] = v;
    }
  });
  // Sums of 16 products in order of the depth. Tensor cores round differently inside; tolerances come from the arithmetic.
  for (int i = 0; i < kWarpRows; ++i) {
    std::memset(sums[i], 0, sizeof sums[i]);
    for (int k = 0; k < kDepth; ++k)
      for (int j = 0; j < o.cols; ++j) sums[i][j] += a[i][k] * x[k][j];
  }
  o.group = b.products(first).groups;
  b.products(first).operands.push_back(o);
  for (int lane = 0; lane < 32; ++lane) {
    std::memcpy(&in, lanes[lane].in, sizeof in);
    Products& mine = b.products(first + lane);
    const int count = o.cols / 2;
    Sums* s = nullptr;
    for (Sums& known : mine.sums)
      if (known.to == in.d) s = &known;
    if (!s) {
      s = &mine.sums.emplace_back(Sums{in.d, std::vector<float>(in.d, in.d + count), 0});
      for (int i = 0; i < count; ++i) in.d[i] = std::numeric_limits<float>::quiet_NaN();
    }
    s->group = mine.groups, ++mine.begun;
    for (const std::uint64_t word :
         {o.a, o.b, std::uint64_t(o.cols * 8 + o.a_transposed * 4 + o.b_transposed * 2 + in.add)})
      mine.arguments = (mine.arguments ^ word) * 0x100000001b3ull;
    if (!in.add) std::fill(s->values.begin(), s->values.end(), 0.0f);
    for (int i = 0; i < count; ++i)
      s->values[std::size_t(i)] += sums[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
  }
  count_tensor_core_products(std::uint64_t(o.cols) / 8);
}

void compute_wait(Deposit* lanes, unsigned) {
  Block& b = block();
  const int first = b.current() / 32 * 32, done_before = b.products(first).groups - lanes[0].argument;
  std::vector<Operands>& all = b.products(first).operands;
  std::size_t kept = 0;
  for (const Operands& o : all) {
    if (o.group >= done_before) {
      all[kept++] = o;
      continue;
    }
    if (read_operands(o, first, false, [](bool, const char*, int, int) {}) != o.hash)
      b.fault(
          "warpgroup_wait: the operands of this product changed while it was in flight; wait for its group, then "
          "pass a barrier, before they are overwritten",
          o.file, o.line);
  }
  all.resize(kept);
  for (int lane = 0; lane < 32; ++lane) {
    std::vector<Sums>& sums = b.products(first + lane).sums;
    std::erase_if(sums, [&](const Sums& s) {
      if (s.group >= done_before) return false;
      std::memcpy(s.to, s.values.data(), s.values.size() * sizeof(float));
      return true;
    });
  }
}

void check_warpgroup(const char* what, const char* file, int line) {
  if (block().current() / kWarpgroup * kWarpgroup + kWarpgroup > block().threads())
    block().fault(
        cat(what, ": the block of ", block().threads(), " threads ends within this warpgroup of ", kWarpgroup), file,
        line);
}

}  // namespace

void Block::check_products_done() {
  Products& mine = fibers_[std::size_t(current_)].products;
  if (!mine.sums.empty())
    fault("the thread exits with products of its warpgroup in flight; call warpgroup_wait<0>() before the end", nullptr,
          0);
  if (done_ + 1 < threads_) return;
  for (int t = 0; t < threads_; ++t) {
    const int first = t / kWarpgroup * kWarpgroup, begun = fibers_[std::size_t(t)].products.begun;
    if (const int others = fibers_[std::size_t(first)].products.begun; begun != others)
      fault(cat("thread ", first, " took part in ", others, " products of its warpgroup, thread ", t, " in ", begun,
                "; all four warps must call each warpgroup_mma()"),
            nullptr, 0);
    if (fibers_[std::size_t(t)].products.arguments != fibers_[std::size_t(first)].products.arguments)
      fault(
          cat("threads ", first, " and ", t, " of one warpgroup have called warpgroup_mma() with different arguments"),
          nullptr, 0);
  }
}

std::uint32_t shared_address(const void* p, const char* file, int line) {
  if (!block().in_shared(p, 16)) block().fault("shared_address of what is not the block's shared memory", file, line);
  return std::uint32_t(block().shared_offset(p));
}

void fence_for_products(const char*, int) { block().fence_for_products(); }

void warpgroup_fence(const char* file, int line) {
  check_warpgroup("warpgroup_fence", file, line);
  block().meet("warpgroup_fence", ~0u, {.file = file, .line = line}, nullptr);
  block().products(block().current()).fenced = true;
}
void warpgroup_commit(const char* file, int line) {
  check_warpgroup("warpgroup_commit", file, line);
  block().meet("warpgroup_commit", ~0u, {.file = file, .line = line}, nullptr);
  Products& mine = block().products(block().current());
  ++mine.groups, mine.fenced = false;
}
void warpgroup_wait(int still_in_flight, const char* file, int line) {
  check_warpgroup("warpgroup_wait", file, line);
  block().meet("warpgroup_wait", ~0u, {.file = file, .line = line, .argument = still_in_flight}, compute_wait);
}

void warpgroup_mma(float* d, int cols, std::uint64_t a, bool a_transposed, std::uint64_t b, bool b_transposed, bool add,
                   const char* file, int line) {
  check_warpgroup("warpgroup_mma", file, line);
  if (!block().products(block().current()).fenced)
    block().fault(
        "warpgroup_mma without warpgroup_fence() since the last group: the sums may not be in their registers yet",
        file, line);
  const std::uint32_t code = watcher ? code_of(__builtin_return_address(0)) : 0;
  const ProductIn in{d, add, {a, b, a_transposed, b_transposed, cols, 0, 0, file, line, code}};
  block().meet("warpgroup_mma", ~0u, {.file = file, .line = line, .in = &in}, compute_product);
}

}  // namespace eg::emulated
