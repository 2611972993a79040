// cuda/emulated/words.cpp - what the words of a kernel do (declared in words.h, called on a fiber of a running block).
#include "cuda/emulated/words.h"

#include <atomic>
#include <cstring>

#include "cuda/emulated/block.h"
#include "cuda/emulated/heap.h"
#include "cuda/emulated/place.h"
#include "cuda/emulated/runtime.h"
#include "engine/dtype.h"
#include "engine/error.h"

namespace eg::emulated {
namespace {

template <class T>
T read(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <class T>
void write(void* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

Block& block() { return *running_block(); }

template <class F>
void for_each_lane(unsigned mask, const F& f) {
  for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
}

void compute_sync(Deposit*, unsigned mask) { watcher->sync_warp(block().current() / 32 * 32, mask); }

struct ShuffleIn {
  Shuffle kind;
  std::uint64_t bits;
};

int source_lane(Shuffle kind, int lane, int argument, int width) {
  const int first = lane / width * width, last = first + width - 1;
  switch (kind) {
    case Shuffle::index: return first + (argument & (width - 1));
    case Shuffle::up: return lane - argument < first ? lane : lane - argument;
    case Shuffle::down: return lane + argument > last ? lane : lane + argument;
    case Shuffle::exclusive_or: return (lane ^ argument) > last ? lane : lane ^ argument;
  }
  return lane;
}

void compute_shuffle(Deposit* lanes, unsigned mask) {
  for_each_lane(mask, [&](int lane) {
    const Deposit& d = lanes[lane];
    const ShuffleIn in = read<ShuffleIn>(d.in);
    const int from = source_lane(in.kind, lane, d.argument, d.width);
    if (!(mask >> from & 1))
      block().fault(
          cat("lane ", lane, " reads lane ", from, ", which is not in the mask: on a GPU the value is undefined"),
          d.file, d.line);
    write(d.out, read<ShuffleIn>(lanes[from].in).bits);
  });
}

void compute_vote(Deposit* lanes, unsigned mask) {
  unsigned ballot = 0;
  for_each_lane(mask, [&](int lane) { ballot |= unsigned(read<bool>(lanes[lane].in)) << lane; });
  for_each_lane(mask, [&](int lane) { write(lanes[lane].out, ballot); });
}

template <class T, bool kMaximum>
void compute_reduce(Deposit* lanes, unsigned) {
  T v[32], next[32];
  for (int lane = 0; lane < 32; ++lane) v[lane] = read<T>(lanes[lane].in);
  for (int offset = 16; offset > 0; offset /= 2) {
    for (int lane = 0; lane < 32; ++lane) {
      const T other = v[lane ^ offset];
      if constexpr (kMaximum)
        next[lane] = sizeof(T) == 4 ? T(fmaxf(float(v[lane]), float(other))) : T(fmax(double(v[lane]), double(other)));
      else
        next[lane] = v[lane] + other;
    }
    std::memcpy(v, next, sizeof v);
  }
  for (int lane = 0; lane < 32; ++lane) write(lanes[lane].out, v[lane]);
}

template <class T>
T reduce(T v, bool maximum, const char* file, int line) {
  T result{};
  const Deposit d{.file = file, .line = line, .argument = maximum, .in = &v, .out = &result};
  block().meet(maximum ? "warp_max" : "warp_sum", ~0u, d,
               maximum ? &compute_reduce<T, true> : &compute_reduce<T, false>);
  return result;
}

void compute_load_matrix(Deposit* lanes, unsigned) {
  const int count = lanes[0].argument;
  const bool transposed = lanes[0].width != 0;
  for (int m = 0; m < count; ++m)
    for (int lane = 0; lane < 32; ++lane) {
      std::uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int row = transposed ? 2 * (lane % 4) + i : lane / 4, column = transposed ? lane / 4 : 2 * (lane % 4) + i;
        const char* const from = static_cast<const char*>(lanes[m * 8 + row].in) + 2 * column;
        pair[i] = read<std::uint16_t>(from);
        // The lane that receives reads; the one that gave the address does not.
        if (watcher) watcher->access(block().current() / 32 * 32 + lane, from, 2, false, lanes[lane].code);
      }
      write(static_cast<std::uint32_t*>(lanes[lane].out) + m, std::uint32_t(pair[0]) | std::uint32_t(pair[1]) << 16);
    }
}

struct MmaIn {
  const float* d;
  const std::uint32_t *a, *b;
};

float half(std::uint32_t packed, int which) {
  return __builtin_bit_cast(float, which ? packed & 0xffff0000u : packed << 16);
}

std::atomic<std::uint64_t> products{0};

// Sums in fp32 in order of k. Tensor cores round differently inside; tolerances come from the arithmetic, not from
// here.
void compute_mma(Deposit* lanes, unsigned) {
  products.fetch_add(1, std::memory_order_relaxed);
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto in = read<MmaIn>(lanes[lane].in);
    const int g = lane / 4, t = 2 * (lane % 4);
    for (int i = 0; i < 2; ++i) {
      a[g][t + i] = half(in.a[0], i), a[g + 8][t + i] = half(in.a[1], i);
      a[g][t + 8 + i] = half(in.a[2], i), a[g + 8][t + 8 + i] = half(in.a[3], i);
      b[t + i][g] = half(in.b[0], i), b[t + 8 + i][g] = half(in.b[1], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto in = read<MmaIn>(lanes[lane].in);
    const int g = lane / 4, t = 2 * (lane % 4);
    float* const out = static_cast<float*>(lanes[lane].out);
    for (int i = 0; i < 4; ++i) {
      const int row = g + (i / 2) * 8, column = t + i % 2;
      float sum = in.d[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      out[i] = sum;
    }
  }
}

}  // namespace

void barrier(const char* file, int line) { block().barrier(file, line); }
void grid_barrier(const char* file, int line) { block().grid_barrier(file, line); }

void sync_warp(unsigned mask, const char* file, int line) {
  block().meet("__syncwarp", mask, {.file = file, .line = line}, watcher ? compute_sync : nullptr);
}

std::uint64_t shuffle(Shuffle kind, unsigned mask, std::uint64_t bits, int argument, int width, const char* file,
                      int line) {
  static const char* const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  if (width < 1 || width > 32 || (width & (width - 1)))
    block().fault(cat(names[int(kind)], ": the width must be 1, 2, 4, 8, 16 or 32, not ", width), file, line);
  const ShuffleIn in{kind, bits};
  std::uint64_t out = 0;
  block().meet(names[int(kind)], mask,
               {.file = file, .line = line, .argument = argument, .width = width, .in = &in, .out = &out},
               compute_shuffle);
  return out;
}

unsigned vote(Vote kind, unsigned mask, bool predicate, const char* file, int line) {
  static const char* const names[] = {"__ballot_sync", "__any_sync", "__all_sync"};
  unsigned ballot = 0;
  block().meet(names[int(kind)], mask, {.file = file, .line = line, .in = &predicate, .out = &ballot}, compute_vote);
  return kind == Vote::ballot ? ballot : kind == Vote::any ? unsigned(ballot != 0) : unsigned(ballot == mask);
}

float warp_reduce(float v, bool maximum, const char* file, int line) { return reduce(v, maximum, file, line); }
double warp_reduce(double v, bool maximum, const char* file, int line) { return reduce(v, maximum, file, line); }

void fence() noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (watcher) watcher->fence(block().current());
}
void pause_fiber(const char* file, int line) { block().pause(file, line); }

unsigned atomic(Atomic op, unsigned* address, unsigned value, const char* file, int line) {
  Block& b = block();
  if (reinterpret_cast<std::uintptr_t>(address) % 4) b.fault("a misaligned atomic", file, line);
  if (!b.in_shared(address, 4) && !Heap::instance().holds(address, 4))
    b.fault(cat("an atomic on memory that is neither shared nor global (", Heap::instance().describe(address), ")"),
            file, line);
  if (watcher) watcher->atomic(b.current());
  std::atomic_ref<unsigned> cell(*address);
  switch (op) {
    case Atomic::add: return cell.fetch_add(value);
    case Atomic::exchange: return cell.exchange(value);
    default: break;
  }
  unsigned old = cell.load();
  const auto larger = [&] { return op == Atomic::maximum_int ? int(value) > int(old) : value > old; };
  while (larger() && !cell.compare_exchange_weak(old, value)) {}
  return old;
}

void* dynamic_shared(std::size_t bytes, std::size_t alignment, const char* file, int line) {
  return block().dynamic_shared(bytes, alignment, file, line);
}
void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* file, int line) {
  return block().static_shared(key, bytes, alignment, file, line);
}

void check_vector(const void* address, std::size_t bytes, bool is_store, const char* file, int line) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes)
    block().fault(cat("a misaligned ", bytes, "-byte ", is_store ? "store" : "load", "; a GPU stops here"), file, line);
}

void cp_async(void* to, const void* from, bool valid, const char* file, int line) {
  Block& b = block();
  if (reinterpret_cast<std::uintptr_t>(to) % 16 || reinterpret_cast<std::uintptr_t>(from) % 16)
    b.fault("cp_async_16 with an address that is no multiple of 16 bytes", file, line);
  if (!b.in_shared(to, 16)) b.fault("cp_async_16 into memory that is not the block's shared memory", file, line);
  if (valid && !Heap::instance().holds(from, 16))
    b.fault(cat("cp_async_16 reads outside a device block (", Heap::instance().describe(from), ")"), file, line);
  b.copy_async(to, from, valid, code_of(__builtin_return_address(0)));
}
void cp_async_commit(const char*, int) { block().commit(); }
void cp_async_wait(int still_in_flight, const char*, int) { block().wait(still_in_flight); }

void load_matrix(std::uint32_t* registers, int count, bool transposed, const void* row, const char* file, int line) {
  Block& b = block();
  const int lane = b.current() % 32;
  if (lane < 8 * count) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16)
      b.fault("ldmatrix with a row address that is no multiple of 16 bytes", file, line);
    if (!b.in_shared(row, 16)) b.fault("ldmatrix reads outside the block's shared memory", file, line);
  }
  b.meet(transposed ? "ldmatrix.trans" : "ldmatrix", ~0u,
         {.file = file,
          .line = line,
          .argument = count,
          .width = int(transposed),
          .in = row,
          .out = registers,
          .code = watcher ? code_of(__builtin_return_address(0)) : 0},
         compute_load_matrix);
}

void mma_16816(float* d, const std::uint32_t* a, const std::uint32_t* b, const char* file, int line) {
  // The inputs of a lane stay as they are until all have met, because its fiber waits; d is written last.
  const MmaIn in{d, a, b};
  float out[4];
  block().meet("mma_16816", ~0u, {.file = file, .line = line, .in = &in, .out = out}, compute_mma);
  std::memcpy(d, out, sizeof out);
}
void count_tensor_core_products(std::uint64_t n) noexcept { products.fetch_add(n, std::memory_order_relaxed); }
std::uint64_t tensor_core_products() noexcept { return products.load(std::memory_order_relaxed); }

}  // namespace eg::emulated
