// tests/fuzz/fuzz_image.cpp - whatever the bytes are: an Error that names the file, or an image of the size it claims.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "data/pixels.h"
#include "engine/error.h"

namespace {

void decode(const std::string& bytes) {
  try {
    const eg::detail::Decoded d = eg::detail::decode_image(bytes, "input");
    const eg::Image& i = d.image;
    if (i.channels != 1 && i.channels != 3) std::abort();
    if (d.pixels.size() != std::size_t(i.channels) * std::size_t(i.height) * std::size_t(i.width)) std::abort();
    std::vector<std::uint8_t> out(std::size_t(eg::ImageFormat{3, 17}.bytes()));
    if (i.height <= 4096 && i.width <= 4096) eg::detail::convert(i, {3, 17}, out.data());
  } catch (const eg::Error& e) {
    if (std::strstr(e.what(), "input") == nullptr || e.kind == eg::Kind::internal) std::abort();
  }
}

/// Gives every PNG chunk the sum it should have: mutations would never get past the sums otherwise.
std::string with_sums(std::string bytes) {
  const auto at = [&](std::size_t i) { return std::uint32_t(std::uint8_t(bytes[i])); };
  for (std::size_t chunk = 8; chunk + 12 <= bytes.size();) {
    const std::size_t size = at(chunk) << 24 | at(chunk + 1) << 16 | at(chunk + 2) << 8 | at(chunk + 3);
    if (size > bytes.size() - chunk - 12) break;
    std::uint32_t crc = 0xffffffffu;
    for (std::size_t i = chunk + 4; i < chunk + 8 + size; ++i) {
      crc ^= at(i);
      for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    for (std::size_t i = 0; i < 4; ++i) bytes[chunk + 8 + size + i] = char(~crc >> (24 - 8 * i));
    chunk += size + 12;
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  decode(bytes);
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) decode(with_sums(bytes));
  return 0;
}
