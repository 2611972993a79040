// tests/devices/test_collectives.cpp - collectives on a stream of a device, by processes that mpirun has started (scripts/test_ranks.py).
#include <doctest/doctest.h>

#include <cstdlib>

#include "engine/collectives/mpi.h"
#include "tests/devices/devices.h"
#include "tests/ranks/against_loopback.h"

namespace eg::test {

TEST_CASE("collectives: MPI on a device with streams gives the loopback's bits" *
          doctest::skip(std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr)) {
  REQUIRE(has_emulated());
  const Device device = parse_device("emulated");
  const auto mpi = mpi_ranks(device);
  REQUIRE(mpi->size() > 1);
  DeviceRuntime& r = runtime(device);
  const Stream stream = r.create_stream();
  CHECK(differences_from_loopback(*mpi, device, stream, 5003) == std::vector<std::string>());
  r.destroy_stream(stream);
}

}  // namespace eg::test
