// engine/cpu/table.cpp - which kernels this device has.
#include "engine/cpu/kernels.h"

namespace eg {

const KernelTable& cpu_table() {
  static const KernelTable table{
#define EVERGRAD_ENTRY(name, Args) .name = cpu::name,
      EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY
  };
  return table;
}

}  // namespace eg
