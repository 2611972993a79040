// tests/engine/test_tensor.cpp - handles, views, conversion, devices.
#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <thread>
#include <vector>

#include "engine/kernels.h"
#include "engine/tensor.h"
#include "tests/engine/temporary_folder.h"

#if defined(__SANITIZE_ADDRESS__)
#define EVERGRAD_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EVERGRAD_TEST_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1"; }
#endif
#if defined(EVERGRAD_TEST_ASAN)
// A refused allocation is what a test below asks for; the sanitizer would end the process instead of refusing.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
#endif

using namespace eg;

namespace {
std::vector<double> count_to(int n) {
  std::vector<double> v;
  for (int i = 0; i < n; ++i) v.push_back(i);
  return v;
}
Tensor counting(const Shape& s, DType t = DType::f32, Device d = kCpu) {
  return Tensor::from(std::span<const double>(count_to(int(s.size()))), s, t, d);
}
}  // namespace

TEST_CASE("tensor: values go to the device and back in every dtype") {
  for (const Device d : {kCpu, kReference})
    for (const DType t : {DType::f32, DType::bf16, DType::i32, DType::u8, DType::f64}) {
      const Tensor x = counting({3, 5}, t, d);
      CHECK(x.dtype() == t);
      CHECK(x.device() == d);
      CHECK(x.bytes() == 15 * size_of(t));
      CHECK(x.to_host() == count_to(15));
    }
}

TEST_CASE("tensor: from float, i32 and u8 lists; a wrong count is an error with both numbers") {
  const std::vector<float> f = {0.5f, -1.0f};
  const std::vector<std::int32_t> i = {-7, 1 << 30};
  const std::vector<std::uint8_t> u = {0, 255};
  CHECK(Tensor::from(std::span<const float>(f), {2}, DType::f64, kCpu).to_host() == std::vector<double>{0.5, -1.0});
  CHECK(Tensor::from(std::span<const std::int32_t>(i), {2}, kCpu).to_host() == std::vector<double>{-7, 1 << 30});
  CHECK(Tensor::from(std::span<const std::uint8_t>(u), {1, 2}, kCpu).to_host() == std::vector<double>{0, 255});
  const std::string text =
      error_text(Kind::shape, [&] { Tensor::from(std::span<const float>(f), {3}, DType::f32, kCpu); });
  CHECK(text.find("2") != std::string::npos);
  CHECK(text.find("[3]") != std::string::npos);
  error_text(Kind::shape, [&] { Tensor::from(std::span<const std::uint8_t>(u), {3}, kCpu); });
}

TEST_CASE("tensor: copying a handle shares memory, clone does not") {
  const Tensor a = counting({4});
  const Tensor b = a, c = a.clone();
  a.data_as<float>()[0] = 42;
  CHECK(b.to_host()[0] == 42);
  CHECK(c.to_host()[0] == 0);
  CHECK(b.data() == a.data());
  CHECK(c.data() != a.data());
}

TEST_CASE("tensor: slices and reshapes look at the same memory") {
  const Tensor a = counting({4, 3});
  const Tensor rows = a.slice(1, 2);
  CHECK(rows.shape() == Shape{2, 3});
  CHECK(rows.to_host() == std::vector<double>{3, 4, 5, 6, 7, 8});
  CHECK(rows.slice(1, 1).to_host() == std::vector<double>{6, 7, 8});
  CHECK(a.slice(4, 0).size() == 0);
  const Tensor flat = rows.reshape({6});
  flat.data_as<float>()[0] = -1;
  CHECK(a.to_host()[3] == -1);
  error_text(Kind::shape, [&] { a.slice(3, 2); });
  error_text(Kind::shape, [&] { a.slice(-1, 1); });
  error_text(Kind::shape, [&] { a.slice(1, std::numeric_limits<std::int64_t>::max()); });
  error_text(Kind::shape, [&] { a.slice(0, -1); });
  error_text(Kind::shape, [&] { Tensor::zeros({}, DType::f32, kCpu).slice(0, 1); });
  const std::string text = error_text(Kind::shape, [&] { a.reshape({5, 2}); });
  CHECK(text.find("[5,2]") != std::string::npos);
  CHECK(text.find("[4,3]") != std::string::npos);
}

TEST_CASE("tensor: the tape goes with reshape and is dropped by slice, clone and detached") {
  Tensor a = counting({4});
  int tape = 0;
  a.set_tape(&tape, 7);
  CHECK(a.reshape({2, 2}).tape() == &tape);
  CHECK(a.reshape({2, 2}).tape_id() == 7);
  CHECK(a.slice(0, 2).tape() == nullptr);
  CHECK(a.clone().tape() == nullptr);
  CHECK(a.detached().tape() == nullptr);
  CHECK(a.detached().tape_id() == -1);
}

TEST_CASE("tensor: a typed pointer of the wrong type is an error naming both") {
  const Tensor a = counting({2}, DType::bf16);
  const std::string text = error_text(Kind::dtype, [&] { a.data_as<float>(); });
  CHECK(text.find("f32") != std::string::npos);
  CHECK(text.find("bf16") != std::string::npos);
  CHECK(TensorView{}.as<double>() == nullptr);
}

TEST_CASE("tensor: copies between devices keep values; unequal shapes or types are refused") {
  const Tensor a = counting({2, 3}, DType::f32, kReference);
  const Tensor b = a.to(kCpu);
  CHECK(b.device() == kCpu);
  CHECK(b.to_host() == a.to_host());
  CHECK(a.to(kReference).data() == a.data());
  const Tensor c = Tensor::zeros({2, 3}, DType::f32, kCpu);
  CHECK(c.to_host() == std::vector<double>(6, 0.0));
  c.copy_from(b);
  CHECK(c.to_host() == count_to(6));
  c.set_zero();
  CHECK(c.to_host() == std::vector<double>(6, 0.0));
  error_text(Kind::shape, [&] { c.copy_from(counting({3, 2})); });
  CHECK_THROWS_AS(c.copy_from(counting({2, 3}, DType::f64)), Error);
}

TEST_CASE("tensor: no elements are no error, and an empty handle is false") {
  const Tensor none = Tensor::empty({0, 5}, DType::f32, kCpu);
  CHECK(none.to_host().empty());
  CHECK(none.clone().size() == 0);
  none.set_zero();
  CHECK(bool(none));
  const Tensor empty;
  CHECK_FALSE(bool(empty));
  CHECK_THROWS_AS(empty.device(), Error);
}

TEST_CASE("tensor: a size that overflows, or that no machine has, is an error and not a crash") {
  const std::int64_t big = std::int64_t(1) << 61;  // 2^61 elements, 2^64 bytes as f64
  CHECK_THROWS_AS(Tensor::empty({big, 4}, DType::u8, kCpu), Error);
  CHECK_THROWS_AS(Tensor::empty({big}, DType::f64, kCpu), Error);
  CHECK_THROWS_AS(Tensor::empty({big * 2}, DType::f32, kCpu), Error);
  const std::string text = error_text(Kind::memory, [] { Tensor::empty({std::int64_t(1) << 58}, DType::u8, kCpu); });
  CHECK(text.find("288230376151711744 bytes") != std::string::npos);
  const Tensor a = counting({4});
  error_text(Kind::shape, [&] { Tensor::on(a.storage(), 8, {3}, DType::f32); });
  error_text(Kind::shape, [&] { Tensor::on(a.storage(), -4, {1}, DType::f32); });
}

TEST_CASE("tensor: prints as type, shape and device, never values") {
  CHECK(cat(counting({2, 3}, DType::bf16)) == "bf16[2,3] on cpu");
}

TEST_CASE("storage: borrowed memory is given back once, with the last handle") {
  int released = 0;
  float memory[4] = {1, 2, 3, 4};
  {
    const Tensor t =
        Tensor::on(std::make_shared<Storage>(kCpu, memory, sizeof memory, [&] { ++released; }), 4, {2}, DType::f32);
    const Tensor second = t.slice(0, 1);
    CHECK(t.to_host() == std::vector<double>{2, 3});
    CHECK(released == 0);
  }
  CHECK(released == 1);
}

TEST_CASE("device: names are read and written, anything else is a usage error") {
  CHECK(parse_device("cpu") == kCpu);
  CHECK(parse_device("reference") == kReference);
  CHECK(parse_device("emulated").type == DeviceType::emulated);
  CHECK(parse_device("cuda") == Device{DeviceType::cuda, 0});
  CHECK(parse_device("cuda:3") == Device{DeviceType::cuda, 3});
  for (const char* text :
       {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "CPU", "cpu ", "cuda:99999999999", "cuda: 1", "cuda:+1"}) {
    const std::string message = error_text(Kind::usage, [&] { parse_device(text); });
    CHECK(message.find("cpu") != std::string::npos);  // says what is possible
  }
  for (const char* text : {"cpu", "reference", "cuda:3"}) CHECK(to_string(parse_device(text)) == text);
}

TEST_CASE("device: the two host devices are there, an absent one is an error that lists them") {
  const auto all = devices();
  CHECK(std::find(all.begin(), all.end(), kCpu) != all.end());
  CHECK(std::find(all.begin(), all.end(), kReference) != all.end());
  for (const Device d : {kCpu, kReference}) {
    CHECK_FALSE(runtime(d).describe().empty());
    CHECK(reinterpret_cast<std::uintptr_t>(Tensor::empty({3}, DType::u8, d).data()) % 64 == 0);
    CHECK(runtime(d).allocate(0) == nullptr);
    runtime(d).release(nullptr);
  }
  for (const Device d : {kCpu, kReference}) {  // what a stream would reach is reached at once
    const Event first = runtime(d).create_timed_event(), second = runtime(d).create_timed_event();
    runtime(d).record(first, {});
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    runtime(d).record(second, {});
    CHECK(runtime(d).seconds_between(first, second) >= 0.002);
    CHECK(runtime(d).seconds_between(second, first) == -runtime(d).seconds_between(first, second));
    runtime(d).destroy_event(first), runtime(d).destroy_event(second);
  }
  const Device absent{DeviceType::cuda, 63};
  CHECK(error_text(Kind::device, [&] { runtime(absent); }).find("reference") != std::string::npos);
  CHECK(error_text(Kind::device, [&] { kernels(absent); }).find("cpu") != std::string::npos);
  // Who leaves a kind of device out says why; of one that is there nobody can.
  register_absence(DeviceType::cuda, "lent to somebody else");
  register_absence(DeviceType::cpu, "nowhere");
  CHECK(why_absent(DeviceType::cuda) == "lent to somebody else");
  CHECK(why_absent(DeviceType::cpu).empty());
  CHECK(error_text(Kind::device, [&] { runtime(absent); }).find("cuda:63 is lent to somebody else; available: cpu") !=
        std::string::npos);
  CHECK_THROWS_AS(Tensor::empty({1}, DType::f32, absent), Error);
}
