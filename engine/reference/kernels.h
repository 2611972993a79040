// engine/reference/kernels.h - the entries of this device's table, one declaration each; bodies stand in the file of
// the family.
#pragma once
#include "engine/kernels.h"

namespace eg::reference {

#define EVERGRAD_DECLARE(name, Args) void name(const Args&, Stream);
EVERGRAD_FOR_EACH_KERNEL(EVERGRAD_DECLARE)
#undef EVERGRAD_DECLARE

}  // namespace eg::reference
