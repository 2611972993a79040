// engine/collectives/ordered_sum.h - the one sum that host collectives take: in ascending order of ranks.
#pragma once
#include <cstdint>
#include <span>

#include "engine/dtype.h"

namespace eg {

/// out[i] = parts[0][i] + parts[1][i] + ..., host memory, [count] each. f32 and f64 in their own precision; bf16 in fp32,
/// rounded once at the end. out may be one of the parts. Equal parts give equal bits, wherever and in whatever pieces the
/// sum is taken. Throws Error{dtype} for other types.
void ordered_sum(std::span<const void* const> parts, void* out, std::int64_t count, DType dtype);

/// Throws Error{dtype} unless ranks can add numbers of this type up.
void check_summable(DType dtype, const char* operation);

}  // namespace eg
