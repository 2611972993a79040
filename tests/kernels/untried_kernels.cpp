// tests/kernels/untried_kernels.cpp - every kernel that was compiled for the emulated device has run in this program.
//
// An entry of the table chooses its kernel by shape, type and alignment, so a suite that runs every entry may still
// leave out instantiations of a template. The linker sends every call of launch_checked() through this file (--wrap,
// tests/CMakeLists.txt), which notes the kernel; the names of all kernels are read from the program's own symbols.
// doctest runs files in the order of their names, so this one comes after test_*.cpp.
#include <doctest/doctest.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "engine/error.h"

namespace eg::emulated_backend {
/// What the linker calls launch_checked() itself, and what everybody calls instead.
void launch_checked_itself(const LaunchRequest& request, Stream stream) __asm__("__real_" EVERGRAD_LAUNCH_SYMBOL);
void launch_and_note(const LaunchRequest& request, Stream stream) __asm__("__wrap_" EVERGRAD_LAUNCH_SYMBOL);

namespace {
std::set<std::uintptr_t>& launched() {
  static std::set<std::uintptr_t> kernels;
  return kernels;
}
}  // namespace

void launch_and_note(const LaunchRequest& request, Stream stream) {
  launch_checked_itself(request, stream);
  if (request.grid.x > 0 && request.grid.y > 0 && request.grid.z > 0)
    launched().insert(reinterpret_cast<std::uintptr_t>(request.kernel));
}
}  // namespace eg::emulated_backend

namespace eg::test {
namespace {

struct Elsewhere {
  const char *kernels, *why;  // a regular expression for the name, without its namespace
};
/// Kernels that this program leaves out.
const std::vector<Elsewhere> kElsewhere{
    {"matmul_warpgroup_device<.*",
     "the rule takes others; ctest runs matmul's cases with each (kernels_emulated_*warpgroup-*)"},
};

/// Where the program lies in memory, less where its file says it does.
std::uintptr_t load_offset() {
  std::uintptr_t offset = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* program, std::size_t, void* to) {
        *static_cast<std::uintptr_t*>(to) = program->dlpi_addr;
        return 1;  // the first is the program itself
      },
      &offset);
  return offset;
}

/// Name of every kernel in this program by its address. (Parts of one that the compiler moved away have " [clone" in
/// their names, which does not fit.)
std::map<std::uintptr_t, std::string> kernels_of_this_program() {
  std::string program(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", program.data(), program.size());
  REQUIRE(length > 0);
  program.resize(std::size_t(length));
  const std::string command = cat(EVERGRAD_NM " -C '", program, "'");
  const std::unique_ptr<FILE, int (*)(FILE*)> symbols(popen(command.c_str(), "r"), &pclose);
  REQUIRE_MESSAGE(symbols, command);
  const std::regex kernel(
      "([0-9a-f]+) [tTW] (?:void )?eg::emulated_backend::(?:\\(anonymous namespace\\)::)?"
      "(\\w+_device(?:<.*>)?)\\(eg::emulated_backend::(?:\\(anonymous namespace\\)::)?[^ ]*Params\\)\n");
  std::map<std::uintptr_t, std::string> all;
  const std::uintptr_t offset = load_offset();
  char* line = nullptr;
  std::size_t size = 0;
  for (std::cmatch found; getline(&line, &size, symbols.get()) > 0;)
    if (std::regex_match(line, found, kernel)) all[offset + std::stoull(found[1], nullptr, 16)] = found[2];
  std::free(line);
  return all;
}

}  // namespace

TEST_CASE("kernels: every one that was compiled has run in this program") {
  if (const char* const brief = std::getenv("EVERGRAD_SHORT_TESTS"); brief && *brief) {
    MESSAGE("left out: with EVERGRAD_SHORT_TESTS cases leave shapes out");
    return;
  }
  const std::map<std::uintptr_t, std::string> all = kernels_of_this_program();
  const std::set<std::uintptr_t>& launched = emulated_backend::launched();
  // Else the names above do not fit, and nothing would be missing.
  for (const std::uintptr_t kernel : launched)
    CHECK_MESSAGE(all.contains(kernel),
                  "a kernel was launched whose name does not end in _device, or whose argument not in Params");
  CHECK(all.size() > 100);
  for (const auto& [address, name] : all) {
    const auto exception = std::find_if(kElsewhere.begin(), kElsewhere.end(), [&](const Elsewhere& e) {
      return std::regex_match(name, std::regex(e.kernels));
    });
    CAPTURE(name);
    if (exception == kElsewhere.end())
      CHECK_MESSAGE(launched.contains(address), name,
                    " was compiled, and no case of this program has run it; add a shape to its test in tests/kernels");
    else
      CHECK_MESSAGE(!launched.contains(address), name, " has run here, and needs no exception: ", exception->why);
  }
}

}  // namespace eg::test
