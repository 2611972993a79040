// cuda/table.h - the kernel tables and ladders of the two backends.
#pragma once
#include "engine/ladder.h"

namespace eg {
namespace emulated_backend {
const KernelTable& kernel_table();
const Ladders& device_ladders();
/// Tells engine/kernel_choices.h what can be chosen between, and how it is timed.
void describe_kernel_choices();
}  // namespace emulated_backend
namespace cuda_backend {
const KernelTable& kernel_table();
const Ladders& device_ladders();
void describe_kernel_choices(int device);
}  // namespace cuda_backend
}  // namespace eg
