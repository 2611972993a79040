// engine/collectives/agree.h - small things that ranks settle on the host: votes, reasons, and whether they are the same.
#pragma once
#include <string>

#include "engine/collectives/collectives.h"

namespace eg {

/// True on all ranks when it is true on any.
bool on_any_rank(Collectives& ranks, bool mine);
/// The text of the first rank that has one, led by "rank 2 of 4: "; as it is where one rank is alone. Empty when none has.
std::string first_text(Collectives& ranks, const std::string& mine);
/// Throws Error{usage} on all ranks, with each rank's text and the remedy, unless they are equal. what: "their seed".
void check_same_on_ranks(Collectives& ranks, const char* what, const std::string& mine, const char* remedy);

}  // namespace eg
