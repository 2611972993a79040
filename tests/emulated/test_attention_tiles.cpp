// tests/emulated/test_attention_tiles.cpp - the products that tensor cores form in attention, counted: tiles of 16 x 16
// tokens and no more, whatever the number of tokens.
//
// A product multiplies 16 x 16 by 16 x 8 numbers. One of the four or five products of vectors that a pair of tiles needs
// (S and P V forward; S, dP, dS K, dS^T Q and P^T dO backward) therefore takes D / 8 of them.
#include "cuda/table.h"
#include "tests/emulated/arrays.h"

namespace eg::emulated_backend {
namespace {

std::uint64_t tiles_of(std::int64_t tokens) { return std::uint64_t((tokens + 15) / 16); }

/// Products of a forward and of a backward pass over one head.
struct Counted {
  std::uint64_t forward, backward;
};
Counted count(std::int64_t tokens, std::int64_t width) {
  const Shape packed{1, tokens, 3, 1, width}, rows{1, 1, tokens}, out_shape{1, tokens, 1, width};
  const Array<bf16> qkv(std::size_t(packed.size())), out(std::size_t(out_shape.size())), dout(out.bytes() / 2),
      dqkv(qkv.bytes() / 2);
  const Array<float> lse(static_cast<std::size_t>(tokens));
  AttentionFwd f;
  f.qkv = {qkv.data(), DType::bf16, packed}, f.out = {out.data(), DType::bf16, out_shape};
  f.lse = {lse.data(), DType::f32, rows};
  AttentionBwd b;
  b.qkv = f.qkv, b.out = f.out, b.lse = f.lse, b.dout = {dout.data(), DType::bf16, out_shape};
  b.dqkv = {dqkv.data(), DType::bf16, packed};
  const std::uint64_t start = emulated::tensor_core_products();
  kernel_table().attention_fwd(f, {});
  device().synchronize({});
  const std::uint64_t between = emulated::tensor_core_products();
  kernel_table().attention_bwd(b, {});
  device().synchronize({});
  return {between - start, emulated::tensor_core_products() - between};
}

}  // namespace

TEST_CASE("attention: tensor cores compute no more than the tiles of 16 x 16 tokens that hold one") {
  const Restore restore;
  emulated::settings().shared_bytes = 227 * 1024;
  for (const auto& [tokens, width] : std::initializer_list<std::pair<std::int64_t, std::int64_t>>{
           {1, 64}, {16, 32}, {17, 80}, {63, 128}, {65, 64}, {65, 96}, {197, 32}, {197, 64}}) {
    CAPTURE(tokens);
    CAPTURE(width);
    const std::uint64_t pairs = tiles_of(tokens) * tiles_of(tokens), product = std::uint64_t(width) / 8;
    const Counted c = count(tokens, width);
    CHECK(c.forward == 2 * pairs * product);
    CHECK(c.backward == 5 * pairs * product);
    MESSAGE(tokens << " tokens of " << width << ": computed over needed "
                   << double(c.forward) / double(2 * product) * 256.0 / double(tokens * tokens) << " forward, "
                   << double(c.backward) / double(5 * product) * 256.0 / double(tokens * tokens) << " backward");
  }
}

TEST_CASE("attention: a head that passes through shared memory in chunks has a tail in the last one only") {
  const Restore restore;
  emulated::settings().shared_bytes = 48 * 1024;  // 128 tokens at a width of 64
  const std::uint64_t pairs = tiles_of(197) * tiles_of(197);
  const Counted c = count(197, 64);
  CHECK(c.forward == 2 * pairs * 8);
  CHECK(c.backward == 7 * pairs * 8);  // two kernels, both of which form S and dP
}

}  // namespace eg::emulated_backend
