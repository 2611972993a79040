// data/hash.cpp - MD5 and SHA-256 as their standards define them.
#include "data/hash.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/error.h"
#include "engine/file.h"

namespace eg {
namespace {

template <std::size_t N>
std::string hex_of(const std::array<std::uint8_t, N>& bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t b : bytes) text += kDigits[b >> 4], text += kDigits[b & 15];
  return text;
}

/// Feeds whole 64-byte blocks to `block`, keeping the remainder in `rest`.
template <class Block>
void feed(const void* data, std::size_t bytes, std::array<std::uint8_t, 64>& rest, std::uint64_t& total, Block block) {
  const auto* at = static_cast<const std::uint8_t*>(data);
  while (bytes > 0) {
    const std::size_t held = total % 64, take = std::min(bytes, 64 - held);
    std::memcpy(rest.data() + held, at, take);
    at += take, bytes -= take, total += take;
    if (total % 64 == 0) block(rest.data());
  }
}

/// The padding of both hashes: a one bit, zeros up to 56 modulo 64, then the bit count in eight bytes.
template <class Hash>
void pad(Hash& hash, std::uint64_t bytes, bool big_endian) {
  const std::uint8_t one = 0x80, zero = 0;
  hash.update(&one, 1);
  for (std::uint64_t n = bytes + 1; n % 64 != 56; ++n) hash.update(&zero, 1);
  std::uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = std::uint8_t((bytes * 8) >> (8 * (big_endian ? 7 - i : i)));
  hash.update(length, 8);
}

/// MD5's additive constants: floor(2^32 |sin(i + 1)|).
const std::array<std::uint32_t, 64>& sines() {
  static const std::array<std::uint32_t, 64> table = [] {
    std::array<std::uint32_t, 64> t{};
    for (std::size_t i = 0; i < 64; ++i) t[i] = std::uint32_t(std::floor(std::fabs(std::sin(double(i + 1))) * 0x1p32));
    return t;
  }();
  return table;
}

/// SHA-256's constants: the first 32 fraction bits of the cube roots of the first 64 primes in
/// extended precision, checked by the published vectors in the tests.
const std::array<std::uint32_t, 64>& cube_roots() {
  static const std::array<std::uint32_t, 64> table = [] {
    std::array<std::uint32_t, 64> t{};
    std::uint32_t prime = 2;
    for (std::size_t i = 0; i < 64; ++prime) {
      bool divisible = false;
      for (std::uint32_t d = 2; d * d <= prime; ++d) divisible |= prime % d == 0;
      if (divisible) continue;
      const long double root = std::cbrt(static_cast<long double>(prime));
      t[i++] = std::uint32_t((root - std::floor(root)) * 0x1p32L);
    }
    return t;
  }();
  return table;
}

}  // namespace

void Md5::block(const std::uint8_t* at) {
  constexpr int kShift[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  std::uint32_t word[16];
  for (int i = 0; i < 16; ++i)
    word[i] = std::uint32_t(at[4 * i]) | std::uint32_t(at[4 * i + 1]) << 8 | std::uint32_t(at[4 * i + 2]) << 16 |
              std::uint32_t(at[4 * i + 3]) << 24;
  auto [a, b, c, d] = state_;
  for (int i = 0; i < 64; ++i) {
    std::uint32_t f = 0;
    int g = 0;
    switch (i / 16) {
      case 0: f = (b & c) | (~b & d), g = i; break;
      case 1: f = (d & b) | (~d & c), g = (5 * i + 1) % 16; break;
      case 2: f = b ^ c ^ d, g = (3 * i + 5) % 16; break;
      default: f = c ^ (b | ~d), g = 7 * i % 16; break;
    }
    const std::uint32_t sum = a + f + sines()[std::size_t(i)] + word[g];
    a = d, d = c, c = b;
    b += std::rotl(sum, kShift[i / 16][i % 4]);
  }
  state_[0] += a, state_[1] += b, state_[2] += c, state_[3] += d;
}

void Md5::update(const void* data, std::size_t bytes) {
  feed(data, bytes, rest_, bytes_, [this](const std::uint8_t* at) { block(at); });
}

std::string Md5::hex() {
  pad(*this, bytes_, false);
  std::array<std::uint8_t, 16> out;
  for (std::size_t i = 0; i < 16; ++i) out[i] = std::uint8_t(state_[i / 4] >> (8 * (i % 4)));
  return hex_of(out);
}

void Sha256::block(const std::uint8_t* at) {
  std::uint32_t w[64];
  for (int i = 0; i < 16; ++i)
    w[i] = std::uint32_t(at[4 * i]) << 24 | std::uint32_t(at[4 * i + 1]) << 16 | std::uint32_t(at[4 * i + 2]) << 8 |
           std::uint32_t(at[4 * i + 3]);
  for (int i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  std::array<std::uint32_t, 8> s = state_;
  for (int i = 0; i < 64; ++i) {
    const std::uint32_t e1 = std::rotr(s[4], 6) ^ std::rotr(s[4], 11) ^ std::rotr(s[4], 25);
    const std::uint32_t choose = (s[4] & s[5]) ^ (~s[4] & s[6]);
    const std::uint32_t t1 = s[7] + e1 + choose + cube_roots()[std::size_t(i)] + w[i];
    const std::uint32_t e0 = std::rotr(s[0], 2) ^ std::rotr(s[0], 13) ^ std::rotr(s[0], 22);
    const std::uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
    s = {t1 + e0 + majority, s[0], s[1], s[2], s[3] + t1, s[4], s[5], s[6]};
  }
  for (std::size_t i = 0; i < 8; ++i) state_[i] += s[i];
}

void Sha256::update(const void* data, std::size_t bytes) {
  feed(data, bytes, rest_, bytes_, [this](const std::uint8_t* at) { block(at); });
}

std::string Sha256::hex() {
  pad(*this, bytes_, true);
  std::array<std::uint8_t, 32> out;
  for (std::size_t i = 0; i < 32; ++i) out[i] = std::uint8_t(state_[i / 4] >> (24 - 8 * (i % 4)));
  return hex_of(out);
}

std::string md5_of(std::string_view text) {
  Md5 h;
  h.update(text.data(), text.size());
  return h.hex();
}

std::string sha256_of(std::string_view text) {
  Sha256 h;
  h.update(text.data(), text.size());
  return h.hex();
}

std::string file_sum(const std::filesystem::path& path, std::string_view expected) {
  check(expected.size() == 32 || expected.size() == 64, Kind::usage,
        [&] { return cat("'", expected, "' is neither an MD5 (32 digits) nor a SHA-256 (64 digits)"); });
  const FileHandle file = open_for_reading(path);
  std::uint64_t left = std::filesystem::file_size(path), at = 0;
  std::vector<std::byte> buffer(std::size_t(1) << 20);
  Md5 md5;
  Sha256 sha;
  while (left > 0) {
    const auto take = std::size_t(std::min<std::uint64_t>(left, buffer.size()));
    read_at(file.get(), at, std::span(buffer.data(), take), path);
    expected.size() == 32 ? md5.update(buffer.data(), take) : sha.update(buffer.data(), take);
    at += take, left -= take;
  }
  return expected.size() == 32 ? md5.hex() : sha.hex();
}

}  // namespace eg
