// data/hash.h - MD5 (RFC 1321) and SHA-256 (FIPS 180-4), to verify downloads against published sums. MD5 guards against
// damage, not against an attacker; it is used only where nothing better is published.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace eg {

class Md5 {
 public:
  void update(const void* data, std::size_t bytes);
  /// 32 lower-case hexadecimal digits; the object is used up.
  std::string hex();

 private:
  void block(const std::uint8_t* at);
  std::array<std::uint32_t, 4> state_{0x67452301u, 0xefcdab89u, 0x98badcfeu, 0x10325476u};
  std::array<std::uint8_t, 64> rest_{};
  std::uint64_t bytes_ = 0;
};

class Sha256 {
 public:
  void update(const void* data, std::size_t bytes);
  /// 64 lower-case hexadecimal digits; the object is used up.
  std::string hex();

 private:
  void block(const std::uint8_t* at);
  std::array<std::uint32_t, 8> state_{0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                                      0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
  std::array<std::uint8_t, 64> rest_{};
  std::uint64_t bytes_ = 0;
};

std::string md5_of(std::string_view text);
std::string sha256_of(std::string_view text);
/// Sum of a whole file: SHA-256 when `expected` has 64 digits, MD5 when it has 32. Throws Error{io}; Error{usage} for
/// any other length.
std::string file_sum(const std::filesystem::path& path, std::string_view expected);

}  // namespace eg
