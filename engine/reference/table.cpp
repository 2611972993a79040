// engine/reference/table.cpp - which kernels this device has.
#include "engine/reference/kernels.h"

namespace eg {

const KernelTable& reference_table() {
  static const KernelTable table{
#define EVERGRAD_ENTRY(name, Args) .name = reference::name,
      EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY
  };
  return table;
}

}  // namespace eg
