// cuda/table.cpp - the kernel table of the backend that this file is compiled for.
#include "cuda/table.h"

#include "cuda/kernels/kernels.h"

namespace eg::EVERGRAD_BACKEND {

const KernelTable& kernel_table() {
  static const KernelTable table{
#define EVERGRAD_ENTRY(name, Args) .name = name,
      EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_ENTRY)
#undef EVERGRAD_ENTRY
  };
  return table;
}

}  // namespace eg::EVERGRAD_BACKEND
