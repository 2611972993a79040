// engine/collectives/wait_time.h - how long a rank has waited for the others.
#pragma once
#include "engine/collectives/collectives.h"

namespace eg {

/// Seconds that calls of collectives have taken on this rank so far, where they are watched (watchdog.h); else 0. On devices
/// that work later than the host, only what the host waited for.
double seconds_in_collectives(const Collectives& ranks);

}  // namespace eg
