// tests/engine/test_memory.cpp - the activation pool.
#include <doctest/doctest.h>

#include <vector>

#include "engine/memory.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

TEST_CASE("pool: a block given back is handed out again, with the same address") {
  const auto p = ActivationPool::make(kCpu);
  void* first = nullptr;
  {
    const Tensor t = p->empty({100, 100}, DType::f32);
    first = t.data();
    CHECK(p->bytes_live() >= 40000);
  }
  CHECK(p->bytes_live() == 0);
  CHECK(p->empty({100, 100}, DType::f32).data() == first);
  CHECK(p->allocations() == 1);
}

TEST_CASE("pool: allocations stay flat and addresses repeat from the second step on") {
  const auto p = ActivationPool::make(kCpu);
  const auto step = [&] {
    std::vector<void*> addresses;
    std::vector<Tensor> alive;
    for (int layer = 0; layer < 12; ++layer) {
      alive.push_back(p->empty({64, 65, 192}, DType::bf16));
      const Tensor scratch = p->empty({64 * 65, 33 + layer}, DType::f32);
      addresses.push_back(alive.back().data());
      addresses.push_back(scratch.data());
    }
    while (!alive.empty()) alive.pop_back();
    return addresses;
  };
  step();
  const auto second = step();
  const auto allocations = p->allocations();
  const auto reserved = p->bytes_reserved(), peak = p->bytes_peak();
  for (int i = 0; i < 5; ++i) {
    const auto again = step();
    CHECK(again.size() == second.size());
    CHECK(step() == step());
  }
  CHECK(p->allocations() == allocations);
  CHECK(p->bytes_reserved() == reserved);
  CHECK(p->bytes_peak() == peak);
  CHECK(p->bytes_live() == 0);
}

TEST_CASE("pool: tensors alive at once never share memory") {
  const auto p = ActivationPool::make(kCpu);
  std::vector<Tensor> alive;
  for (int i = 0; i < 50; ++i) {
    alive.push_back(p->empty({1 + i % 7, 500}, DType::f32));
    float* x = alive.back().data_as<float>();
    for (std::int64_t k = 0; k < alive.back().size(); ++k) x[k] = float(i);
    if (i % 3 == 2) alive.erase(alive.begin() + i / 3);
  }
  for (const Tensor& t : alive) {
    const auto values = t.to_host();
    CHECK(std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; }));
  }
}

TEST_CASE("pool: peak counts what was alive at once and reset_peak starts over") {
  const auto p = ActivationPool::make(kCpu);
  { const Tensor a = p->empty({1 << 20}, DType::u8), b = p->empty({1 << 20}, DType::u8); }
  CHECK(p->bytes_peak() >= 2u << 20);
  CHECK(p->bytes_peak() < 3u << 20);
  p->reset_peak();
  { const Tensor a = p->empty({1 << 20}, DType::u8); }
  CHECK(p->bytes_peak() < 2u << 20);
}

TEST_CASE("pool: a tensor outlives its pool") {
  Tensor t;
  {
    const auto p = ActivationPool::make(kCpu);
    t = p->empty({1000}, DType::f32);
  }
  t.set_zero();
  CHECK(t.to_host() == std::vector<double>(1000, 0.0));
}

TEST_CASE("pool: empty tensors and one pool per device") {
  CHECK(pool(kCpu).empty({0, 3}, DType::f32).size() == 0);
  CHECK(&pool(kCpu) == &pool(kCpu));
  CHECK(&pool(kCpu) != &pool(kReference));
  CHECK(pool(kReference).device() == kReference);
  CHECK_THROWS_AS(pool(kCpu).empty({std::int64_t(1) << 62}, DType::f32), Error);
}
