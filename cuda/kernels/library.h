// cuda/kernels/library.h - table entries by a vendor's library, as further ways beside our own.
#pragma once
#include <string>
#include <vector>

#include "cuda/choose.h"

namespace eg::EVERGRAD_BACKEND {

/// Adds what the library offers for this call: nothing where the build has none, or the library lacks the operation.
void add_library_ways(const std::string& call, const Matmul& m, std::vector<Way<Matmul>>* ways);
void add_library_ways(const std::string& call, const AttentionFwd& a, std::vector<Way<AttentionFwd>>* ways);
void add_library_ways(const std::string& call, const AttentionBwd& a, std::vector<Way<AttentionBwd>>* ways);

/// Names of everything that a wrapper of this build may list.
std::vector<std::string> implementation_names();

}  // namespace eg::EVERGRAD_BACKEND
