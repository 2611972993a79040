// tests/fuzz/fuzz_safetensors.cpp - whatever the bytes are: an Error, or tensors that lie inside them.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "engine/safetensors.h"

namespace {

/// Treats the input as header text alone too: a random length field is almost never right.
std::string with_length(const std::uint8_t* data, std::size_t size) {
  const std::size_t header = size ? std::size_t(data[0]) * 16 % (size + 1) : 0;
  std::string text(8, '\0');
  const std::uint64_t n = header;
  std::memcpy(text.data(), &n, 8);
  return text.append(reinterpret_cast<const char*>(data), size);
}

void read_all(const std::string& bytes) {
  try {
    const auto file = eg::SafetensorsFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "input");
    std::uint64_t total = 0;
    for (const auto& e : file.entries()) {
      if (e.begin + e.bytes > bytes.size()) std::abort();
      total += e.bytes;
      if (file.find(e.name) == nullptr) std::abort();
      (void)file.load(e, eg::kCpu);
    }
    if (total > bytes.size()) std::abort();
  } catch (const eg::Error& e) {
    if (std::strlen(e.what()) > 2000 || e.kind == eg::Kind::internal) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  read_all(std::string(reinterpret_cast<const char*>(data), size));
  if (size > 1) {
    const std::uint8_t* body = data + 1;
    std::string framed = with_length(body, size - 1);
    // The first byte places the end of the header, so that both header and data part can be reached.
    const std::uint64_t n = data[0] == 255 ? size - 1 : std::uint64_t(data[0]) * (size - 1) / 255;
    std::memcpy(framed.data(), &n, 8);
    read_all(framed);
  }
  return 0;
}
