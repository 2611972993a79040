// tests/kernels/test_instruction_sets.cpp - choosing what the cpu may use.
#include "tests/kernels/conform.h"

namespace eg::test {

TEST_CASE("instruction sets: asking for one that the machine lacks is refused, and the choice shows") {
  const cpu::Isa before = cpu::isa();
  for (const cpu::Isa isa : {cpu::Isa::generic, cpu::Isa::avx2, cpu::Isa::avx512}) {
    CAPTURE(std::string(cpu::to_string(isa)));
    if (isa <= cpu::widest_isa()) {
      cpu::use_isa(isa);
      CHECK(cpu::isa() == isa);
    } else {
      CHECK_THROWS_AS(cpu::use_isa(isa), Error);
    }
  }
  cpu::use_isa(before);
}

}  // namespace eg::test
