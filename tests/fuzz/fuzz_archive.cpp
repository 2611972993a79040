// tests/fuzz/fuzz_archive.cpp - whatever the bytes are: an Error, or files that all lie inside the folder.
#include <stdlib.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "data/fetch.h"
#include "engine/error.h"

namespace {

namespace fs = std::filesystem;

/// A folder that holds nothing but `inside`, where everything is unpacked.
const fs::path& outer() {
  static const fs::path made = [] {
    std::string name = (fs::temp_directory_path() / "evergrad_fuzz_XXXXXX").string();
    if (!::mkdtemp(name.data())) std::abort();
    return fs::path(name);
  }();
  return made;
}

template <class F>
void may_throw(F f) {
  try {
    f();
  } catch (const eg::Error& e) {
    // A file that cannot be written is named by its own path, everything else by the archive's.
    if (e.kind != eg::Kind::io && std::strstr(e.what(), "input") == nullptr) std::abort();
    if (e.kind == eg::Kind::internal) std::abort();
  }
}

void unpack(const std::string& tar) {
  const fs::path inside = outer() / "inside";
  fs::create_directories(inside);
  may_throw([&] {
    for (const fs::path& file : eg::unpack_tar(tar, inside, "input"))
      if (fs::weakly_canonical(file).native().rfind(fs::canonical(inside).native() + "/", 0) != 0) std::abort();
  });
  for (const auto& entry : fs::directory_iterator(outer()))
    if (entry.path() != inside) std::abort();
  fs::remove_all(inside);
}

/// Gives every block the sum that a header there would need: mutations would never get past the sums otherwise.
std::string with_sums(std::string tar) {
  for (std::size_t block = 0; block + 512 <= tar.size(); block += 512) {
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? 32u : std::uint8_t(tar[block + i]);
    if (sum == 256) continue;  // all zero: the end mark
    for (std::size_t i = 0; i < 6; ++i) tar[block + 153 - i] = char('0' + (sum >> (3 * i) & 7));
    tar[block + 154] = '\0';
  }
  return tar;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  may_throw([&] { (void)eg::gunzip(bytes, 1 << 20, "input"); });
  unpack(with_sums(bytes + std::string(512, '\0')));
  return 0;
}
