// tests/kernels/test_attention.cpp - attention forward and backward.
#include <cstdlib>

#include "tests/kernels/attention_bounds.h"

namespace eg::test {
namespace {

using namespace attention;
const Covers covers{"attention_fwd", "attention_bwd"};

const std::vector<Problem> kSmall{{{0, 4, 3, 2, 8}, 0.5},      {{1, 1, 3, 1, 1}, 1.0},   {{2, 5, 3, 2, 7}, 0.4},
                                  {{1, 31, 3, 1, 16}, 0.25},   {{3, 32, 3, 2, 5}, 0.7},  {{1, 33, 3, 3, 32}, 0.18},
                                  {{1, 197, 3, 2, 64}, 0.125}, {{1, 13, 3, 1, 33}, 3.0}, {{9, 7, 3, 5, 4}, 0.5}};

/// Fewer lengths, where they are about the ways to compute them (kernels_emulated_race_small and the like).
bool short_tests() {
  const char* const text = std::getenv("EVERGRAD_SHORT_TESTS");
  return text != nullptr && *text != '\0';
}

/// On a device with tensor-core kernels also their head widths, long sequences, and the lengths around a tile. In fp32,
/// where every product is one of its own, 1025 tokens have narrow heads.
std::vector<Problem> problems(DType activation) {
  std::vector<Problem> all = kSmall;
  if (device_under_test().device == kCpu) return all;
  for (const Shape& s : {Shape{2, 65, 3, 2, 64}, Shape{1, 257, 3, 1, 32}, Shape{1, 17, 3, 2, 80},
                         Shape{1, 65, 3, 1, 96}, Shape{1, 63, 3, 1, 128}, Shape{1, 1, 3, 2, 64},
                         Shape{1, 128, 3, 1, 128}, Shape{1, 1025, 3, 1, activation == DType::bf16 ? 32 : 8}})
    all.push_back({s, 1.0 / std::sqrt(double(s[4]))});
  return all;
}
void check_forward(const Problem& p, DType t, bool entropy, bool map) {
  EVERGRAD_CONFORMS(
      attention_fwd, AttentionFwd, cat(p.qkv, " entropy ", entropy, " map ", map), t,
      [&](Arguments& a) {
        AttentionFwd f;
        f.qkv = a.x("qkv", p.qkv), f.out = a.x_out("out", p.out()), f.lse = a.out("lse", DType::f32, p.rows());
        if (entropy) f.row_entropy = a.out("entropy", DType::f32, p.rows());
        if (map) f.map = a.out("map", DType::f32, {p.B(), p.H(), p.N(), p.N()});
        f.scale = p.scale;
        return f;
      },
      [&](const Values& in, const Values&) { return forward_bounds(p, t, entropy, map, in); });
}

}  // namespace

TEST_CASE("attention: forward agrees with the reference, with and without entropy and map") {
  for_each_activation([](DType t) {
    for (const Problem& p : problems(t))
      for (int options = 0; options < 4; ++options) {
        // Of long ones both outputs or none; of 1025 tokens both in fp32 (they have one kernel for both types).
        if (p.N() > 100 && options != 0 && options != 3) continue;
        if (p.N() > 1000 && options != (t == DType::f32 ? 3 : 0)) continue;
        check_forward(p, t, (options & 1) != 0, (options & 2) != 0);
      }
  });
}

TEST_CASE("attention: forward of heads that pass through shared memory in chunks agrees with the reference") {
  if (device_under_test().device == kCpu) return;
  // More tokens than 100 KiB hold (345, 284, 241, 185), so that the maximum and the sum go from chunk to chunk.
  for (const auto& [width, tokens] : std::initializer_list<std::pair<std::int64_t, std::int64_t>>{
           {64, 384}, {64, 1025}, {80, 289}, {96, 257}, {128, 197}})
    if (tokens < 1000 || !short_tests())
      check_forward({{1, tokens, 3, 1, width}, 1.0 / std::sqrt(double(width))}, DType::bf16, false, false);
}

namespace {

/// The call for a qkv that has been drawn, with the out and lse of its forward pass.
AttentionBwd backward_of(Arguments& a, const Problem& p, const TensorView& qkv, bool adds) {
  std::pair<Vector, Vector> made;  // by the first draw: an equal call copies
  const auto from = [&](Vector std::pair<Vector, Vector>::*part) {
    return [&made, &a, &p, part](const Key&, std::int64_t i) {
      if (made.first.empty()) made = forward_results(p, a.values().at("qkv"));
      return (made.*part)[std::size_t(i)];
    };
  };
  AttentionBwd b;
  b.qkv = qkv, b.out = a.x("out", p.out(), from(&std::pair<Vector, Vector>::first));
  b.lse = a.stat("lse", p.rows(), from(&std::pair<Vector, Vector>::second));
  b.dout = a.x("dout", p.out()), b.dqkv = a.x_out("dqkv", p.qkv, adds);
  b.scale = p.scale, b.accumulate = adds;
  return b;
}

void check_backward(const Problem& p, DType t, bool adds) {
  EVERGRAD_CONFORMS(
      attention_bwd, AttentionBwd, cat(p.qkv, " adds ", adds), t,
      [&](Arguments& a) { return backward_of(a, p, a.x("qkv", p.qkv), adds); },
      [&](const Values& in, const Values& exact) { return backward_bounds(p, t, adds, in, exact); });
}

}  // namespace

TEST_CASE("attention: backward agrees with the reference, with and without accumulation") {
  for_each_activation([](DType t) {
    for (const Problem& p : problems(t))
      for (const bool adds : {false, true})
        if (p.N() < 1000 || !adds) check_backward(p, t, adds);
  });
}

TEST_CASE("attention: backward agrees with the reference at every head width of the tensor cores, around every tile") {
  if (device_under_test().device == kCpu) return;  // has no tiles of its own there; small sizes are above
  bool adds = false;
  for (const std::int64_t width : {32, 64, 80, 96, 128})
    for (const std::int64_t tokens : {1, 31, 32, 33, 65, 197, 257}) {
      if (short_tests() && tokens != 33 && tokens != 197) continue;
      check_backward({{1, tokens, 3, tokens < 64 ? 2 : 1, width}, 1.0 / std::sqrt(double(width))}, DType::bf16,
                     adds = !adds);
    }
}

TEST_CASE("attention: backward of heads that no block holds as a whole agrees with the reference") {
  if (device_under_test().device == kCpu) return;
  // The kernel for short sequences ends at 384 and 256 tokens, and 100 KiB hold 345 and 284: two kernels, and chunks.
  bool adds = false;
  for (const auto& [width, tokens] :
       std::initializer_list<std::pair<std::int64_t, std::int64_t>>{{64, 401}, {64, 1025}, {80, 289}})
    if (tokens < 1000 || !short_tests())
      check_backward({{1, tokens, 3, 1, width}, 1.0 / std::sqrt(double(width))}, DType::bf16, adds = !adds);
}

TEST_CASE("attention: backward of scores of 500 is finite, whatever stands in the rows that do not exist") {
  if (device_under_test().device == kCpu) return;
  for (const std::int64_t tokens : {17, 33}) {
    const Problem p{{1, tokens, 3, 1, 32}, 1.0};
    EVERGRAD_CONFORMS(
        attention_bwd, AttentionBwd, cat("lse far below and above zero, ", tokens, " tokens"), DType::bf16,
        [&](Arguments& a) {
          // Queries of both signs against equal keys: lse near -500 or 500, and e^(0 - lse) overflows.
          const Draw draw = [&](const Key& k, std::int64_t i) {
            const std::int64_t part = i / 32 % 3, token = i / 96;
            return part == 0 ? (token % 2 ? -4.0 : 4.0) : part == 1 ? 4.0 : k.normal(std::uint64_t(i));
          };
          return backward_of(a, p, a.x("qkv", p.qkv, draw), false);
        },
        [&](const Values& in, const Values& exact) {
          double least = 0.0;
          for (const double s : in.at("lse")) least = std::min(least, s);
          CHECK(least < -500.0);
          return backward_bounds(p, DType::bf16, false, in, exact);
        });
  }
}

TEST_CASE("attention: a score of 500 neither overflows nor disturbs the other tokens") {
  for_each_activation([](DType t) {
    const Problem p{{1, 33, 3, 1, 8}, 1.0};
    EVERGRAD_CONFORMS(
        attention_fwd, AttentionFwd, "large", t,
        [&](Arguments& a) {
          const Draw draw = [](const Key& k, std::int64_t i) {
            return (i / 24 == 3 ? 60.0 : 1.0) * k.normal(std::uint64_t(i));
          };
          AttentionFwd f;
          f.qkv = a.x("qkv", p.qkv, draw), f.out = a.x_out("out", p.out()), f.lse = a.out("lse", DType::f32, p.rows());
          return f;
        },
        [&](const Values& in, const Values& exact) {
          double largest = 0.0;
          for (const double s : exact.at("lse")) largest = std::max(largest, s);
          CHECK(largest > 500.0);
          return forward_bounds(p, t, false, false, in);
        });
  });
}

}  // namespace eg::test
