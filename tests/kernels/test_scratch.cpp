// tests/kernels/test_scratch.cpp - working memory of kernels: a recording keeps the block it was recorded with.
#include "engine/allocations.h"
#include "engine/tensor.h"
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

/// Column sums that take several chunks, so that the kernel asks for scratch memory.
struct ColumnSums {
  Tensor x, out;
  ColumnSums(std::int64_t rows, std::int64_t columns, Device device) {
    std::vector<float> values(std::size_t(rows * columns));
    const Key k = key(3, "scratch", "values", std::uint32_t(rows));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = float(k.normal(i));
    x = Tensor::from(std::span<const float>(values), {rows, columns}, DType::f32, device);
    out = Tensor::zeros({columns}, DType::f32, device);
  }
  void enqueue(Stream s) const { kernels(x.device()).column_sum(ColumnSum{x.view(), out.view(), false}, s); }
};

}  // namespace

TEST_CASE("scratch: a recorded step gives the same bits after its stream's scratch memory has grown") {
  const Device device = device_under_test().device;
  if (device.is_host()) return;  // has no scratch memory and records nothing
  DeviceRuntime& r = runtime(device);
  const Stream s = r.create_stream();  // of its own, so that no other test has made its scratch memory large
  const ColumnSums small(1031, 67, device), large(2053, 335, device);
  r.synchronize({});
  small.enqueue(s);
  r.synchronize(s);
  const std::vector<double> wanted = small.out.to_host();
  Graph graph;
  REQUIRE(r.capture(
      s, [&] { small.enqueue(s); }, &graph));

  std::int64_t before = device_allocations();
  large.enqueue(s);
  REQUIRE(device_allocations() > before);  // it has grown
  const ColumnSums doubled(2053, 67, device);
  r.synchronize({});  // it was made on another stream
  before = device_allocations();
  doubled.enqueue(s);
  CHECK(device_allocations() == before);  // there is room already
  r.synchronize(s);
  const auto replays = [&] {
    for (int i = 0; i < 2; ++i) {
      small.out.set_zero();
      r.synchronize({});
      r.replay(graph, s);
      r.synchronize(s);
      CHECK(small.out.to_host() == wanted);
    }
  };
  replays();
  // Whoever gets the old block, were it freed, shows it: 17 kB like it, in every size that it may have been cut to.
  std::vector<Tensor> others;
  for (const std::int64_t bytes : {16 * 67 * 4, 17152, 17408, 20480})
    for (int i = 0; i < 4; ++i) {
      others.push_back(Tensor::empty({bytes}, DType::u8, device));
      kernels(device).fill(Fill{others.back().view(), 77.0}, {});
    }
  r.synchronize({});
  replays();
  for (const Tensor& t : others) {
    const std::vector<double> values = t.to_host();
    CHECK(std::all_of(values.begin(), values.end(), [](double v) { return v == 77.0; }));
  }
  r.destroy_graph(graph);
  r.destroy_stream(s);
}

}  // namespace eg::test
