// tests/kernels/test_table.cpp - the tables are complete, and the suite forgets no entry.
#include <algorithm>

#include "tests/kernels/conform.h"

namespace eg::test {

TEST_CASE("kernel tables: reference and the device under test have every entry") {
  for (const KernelTable* table : {&reference_table(), &kernels(device_under_test().device)}) {
#define EVERGRAD_ENTRY(name, Args) CHECK_MESSAGE((table->name != nullptr), #name);
    EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY
  }
}

TEST_CASE("kernel tables: every entry is tested against the reference, and no other is named") {
  std::vector<std::string> entries;
#define EVERGRAD_ENTRY(name, Args) entries.emplace_back(#name);
  EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY
  std::vector<std::string> covered = covered_entries();
  std::sort(entries.begin(), entries.end());
  std::sort(covered.begin(), covered.end());
  CHECK(covered == entries);
}

TEST_CASE("kernel tables: a kernel that a device lacks is refused with the names of both") {
  // `call` is what every op goes through; a table with a hole stands for a device that is not finished.
  const auto message = [](const auto& f) {
    try {
      f();
    } catch (const Error& e) { return std::string(e.what()); }
    return std::string();
  };
  const std::string text = message([] { eg::detail::missing_kernel(kCpu, "gelu_fwd"); });
  CHECK(text.find("gelu_fwd") != std::string::npos);
  CHECK(text.find("cpu") != std::string::npos);
}

}  // namespace eg::test
