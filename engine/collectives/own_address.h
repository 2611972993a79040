// engine/collectives/own_address.h - where this process could listen for the others, when it may choose.
#pragma once
#include <string>

namespace eg {

/// The first address of this host's networks (IPv4) that is not its own loop, in the order in which the system lists them; the
/// host's name where there is none.
std::string own_address();
/// A TCP port that nobody uses now. Throws Error{io} where there is none.
int free_port();

}  // namespace eg
