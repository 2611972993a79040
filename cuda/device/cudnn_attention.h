// cuda/device/cudnn_attention.h - attention by cuDNN, beside our own. NOT RUN ON A GPU YET.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace eg::cuda_backend {

/// "cudnn-0", "cudnn-backward-0", ...: plans in the order in which the library's heuristic puts them.
std::vector<std::string> cudnn_names();
std::size_t cudnn_version();

}  // namespace eg::cuda_backend
