// cuda/device/cublaslt.h - matrix products by cuBLASLt, beside our own. NOT RUN ON A GPU YET.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace eg::cuda_backend {

/// "cublaslt-0", ...: the algorithms in the order in which the library's heuristic puts them.
std::vector<std::string> cublaslt_names();
std::size_t cublaslt_version();

}  // namespace eg::cuda_backend
