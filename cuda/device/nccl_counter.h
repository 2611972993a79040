// cuda/device/nccl_counter.h - parameters of nccl_counter.cu.
#pragma once
#include "cuda/simt.cuh"

namespace eg::cuda_backend {

struct CountUpParams {
  unsigned long long* counter;
};
void (*count_up_kernel())(CountUpParams);

}  // namespace eg::cuda_backend
