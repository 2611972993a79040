// tests/engine/test_preflight.cpp - what is refused or told before a communicator is made.
#include "engine/collectives/preflight.h"

#include <doctest/doctest.h>

#include "engine/error.h"

using namespace eg;

namespace {
std::string refused(std::uint64_t free_bytes, int ranks) {
  try {
    check_shared_memory("n7", free_bytes, ranks);
  } catch (const Error& e) {
    CHECK(e.kind == Kind::device);
    return e.what();
  }
  return "";
}
}  // namespace

TEST_CASE("preflight: a container's 64 MiB of /dev/shm hold two ranks and no third, and the message says what to do") {
  const std::uint64_t mib = std::uint64_t(1) << 20;
  CHECK(refused(64 * mib, 2) == "");
  CHECK(refused(64 * mib, 3) ==
        "/dev/shm of n7 has room for 64 MiB, and NCCL wants about 96 MiB for 3 ranks; start the "
        "container with --shm-size=1g (or --ipc=host), or set NCCL_SHM_DISABLE=1");
  CHECK(refused(64 * mib - 1, 2) != "");
  CHECK(refused(256 * mib, 8) == "");
  CHECK(refused(256 * mib - 1, 8) != "");
  CHECK(refused(0, 1) == "");  // alone it shares nothing
}

TEST_CASE("preflight: the address on the way to a store is one of this machine's own") {
  CHECK(address_towards("tcp://127.0.0.1:29500") == "127.0.0.1");
  CHECK(address_towards("tcp://127.5.5.5:29500") == "127.0.0.1");  // the whole network lies on the loopback interface
  for (const char* nowhere :
       {"memory", "file:///scratch/x", "tcp://", "tcp://no-such-host.invalid:1", "tcp://127.0.0.1"})
    CHECK(address_towards(nowhere) == "-");
}
