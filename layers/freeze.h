// layers/freeze.h - parameters that stay as they are, chosen by name.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/param.h"

namespace eg {

/// True when the whole name fits: '*' stands for any text, dots too, '?' for one character.
bool matches(std::string_view pattern, std::string_view name);
/// The names of `params` that fit one of the patterns, in order.
std::vector<std::string> matching(std::span<Param* const> params, std::span<const std::string> patterns);

/// Freezes what fits one of the patterns: watch() leaves it out of the tape, so that it costs no gradient, and every
/// method leaves its values alone. Call it before an optimizer is made. Throws Error{usage} that lists the names when a
/// pattern fits none of them, or when nothing would be left to train.
void freeze(std::span<Param* const> params, std::span<const std::string> patterns);

}  // namespace eg
