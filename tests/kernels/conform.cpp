// tests/kernels/conform.cpp - buffers with guards, copies on other devices, and the comparison.
#include "tests/kernels/conform.h"

#include <algorithm>
#include <cstdlib>

#include "engine/reference/values.h"

namespace eg::test {
namespace {

constexpr std::byte kGuardByte{0xa5};

double rounded(double value, DType type) {
  alignas(8) std::byte cell[8];
  const TensorView view{cell, type, {1}};
  reference::put(view, 0, value);
  return reference::get(view, 0);
}

/// The emulated device guards every block itself, and finds reads outside too, if nothing legal lies beside it.
std::size_t guard_of(Device device) { return device.type == DeviceType::emulated ? 0 : 64; }

bool same_value(double a, double b) { return a == b || (a != a && b != b); }

}  // namespace

Arguments::Arguments(DType activation, bool exact, const Arguments* drawn)
    : activation_(activation),
      exact_(exact),
      drawn_(drawn),
      device_(exact ? kReference : device_under_test().device),
      guard_(guard_of(device_)) {
  if (device_.is_host()) return;
  device_step_ = runtime(device_).allocate(sizeof(StepRecord));
  device_state_ = runtime(device_).allocate(sizeof(ArrowState));
}

Arguments::~Arguments() {
  if (device_.is_host()) return;
  for (const Buffer& b : buffers_) runtime(device_).release(b.there);
  runtime(device_).release(device_step_);
  runtime(device_).release(device_state_);
}

void Arguments::upload() {
  if (device_.is_host()) return;
  DeviceRuntime& r = runtime(device_);
  for (const Buffer& b : buffers_)
    if (!b.block.empty()) r.copy_from_host(b.there, b.block.data(), b.block.size(), {});
  r.copy_from_host(device_step_, &step, sizeof step, {});
  r.copy_from_host(device_state_, &state, sizeof state, {});
}

void Arguments::download() {
  if (device_.is_host()) return;
  DeviceRuntime& r = runtime(device_);
  for (Buffer& b : buffers_)
    if (!b.block.empty()) r.copy_to_host(b.block.data(), b.there, b.block.size(), {});
  r.copy_to_host(&step, device_step_, sizeof step, {});
  r.copy_to_host(&state, device_state_, sizeof state, {});
  r.synchronize({});
}

TensorView Arguments::make(const std::string& name, DType on_device, DType held, const Shape& shape, const Draw& draw,
                           Use use) {
  Buffer& b = buffers_.emplace_back();
  b.name = name, b.use = use, b.on_device = on_device;
  b.size = std::size_t(shape.size()) * size_of(held);
  b.block.assign(guard_ + b.size + guard_, kGuardByte);
  b.view = {b.block.data() + guard_, held, shape};
  const Buffer* const source = drawn_ ? &drawn_->buffers_.at(buffers_.size() - 1) : nullptr;
  check(!source || (source->name == name && source->view.shape == shape), Kind::internal,
        [&] { return "conformance: " + name + " is not what the first call asked for here"; });
  const Key k = key(3, "conformance", name);
  for (std::int64_t i = 0; i < shape.size(); ++i) {
    const double garbage = is_float(held) ? std::numeric_limits<double>::quiet_NaN() : 77.0;
    const auto value = [&] { return source ? reference::get(source->view, i) : rounded(draw(k, i), on_device); };
    reference::put(b.view, i, use == Use::fresh ? garbage : value());
  }
  b.before = b.block;
  if (device_.is_host()) return b.view;
  b.there = runtime(device_).allocate(std::max<std::size_t>(b.block.size(), 1));  // empty is not absent
  return {static_cast<std::byte*>(b.there) + guard_, held, shape};
}

TensorView Arguments::typed(const std::string& name, DType type, const Shape& shape, const Draw& draw, Use use) {
  return make(name, type, exact_ && is_float(type) ? DType::f64 : type, shape, draw, use);
}

TensorView Arguments::rounded_out(const std::string& name, DType type, const Shape& shape, bool adds) {
  return make(name, type, type, shape, normal(), adds ? Use::added : Use::fresh);
}

Values Arguments::values() const {
  Values all;
  for (const Buffer& b : buffers_) {
    std::vector<double>& v = all[b.name];
    for (std::int64_t i = 0; i < b.view.size(); ++i) v.push_back(reference::get(b.view, i));
  }
  return all;
}

std::int64_t Arguments::size() const {
  std::int64_t size = 0;
  for (const Buffer& b : buffers_) size += b.view.size();
  return size;
}

std::map<std::string, DType> Arguments::outputs() const {
  std::map<std::string, DType> all;
  for (const Buffer& b : buffers_)
    if (b.use != Use::input) all[b.name] = b.on_device;
  return all;
}

std::vector<std::byte> Arguments::bytes_of_state() const {
  std::vector<std::byte> all;
  const auto add = [&](const auto& plain) {
    const auto* const p = reinterpret_cast<const std::byte*>(&plain);
    all.insert(all.end(), p, p + sizeof(plain));
  };
  add(step), add(state);
  return all;
}

std::vector<std::byte> Arguments::bytes() const {
  std::vector<std::byte> all = bytes_of_state();
  for (const Buffer& b : buffers_) all.insert(all.end(), b.block.begin(), b.block.end());
  return all;
}

std::string Arguments::strays() const {
  for (const Buffer& b : buffers_) {
    if (b.use == Use::input && b.block != b.before) return "the input " + b.name + " has changed";
    const auto guarded = [](std::byte x) { return x == kGuardByte; };
    const auto guard = std::ptrdiff_t(guard_);
    if (!std::all_of(b.block.begin(), b.block.begin() + guard, guarded)) return "written before " + b.name;
    if (!std::all_of(b.block.end() - guard, b.block.end(), guarded)) return "written behind " + b.name;
  }
  return "";
}

std::vector<std::string>& covered_entries() {
  static std::vector<std::string> names;
  return names;
}

std::vector<cpu::Isa> instruction_sets() {
  // Under a sanitizer, which makes everything ten times slower, the widest one stands for all: they share their source.
  if (const char* const quick = std::getenv("EVERGRAD_SHORT_TESTS"); quick && *quick) return {cpu::widest_isa()};
  std::vector<cpu::Isa> sets;
  for (const cpu::Isa isa : {cpu::Isa::generic, cpu::Isa::avx2, cpu::Isa::avx512})
    if (isa <= cpu::widest_isa()) sets.push_back(isa);
  return sets;
}

namespace detail {

void compare(const Arguments& start, const Arguments& exact, const Arguments& got, const Allowed& allowed) {
  const Values expected = exact.values(), found = got.values(), bounds = allowed(start.values(), expected);
  for (const auto& entry : bounds) {  // (a structured binding cannot be captured in clang 14)
    const std::string& name = entry.first;
    const std::vector<double>& bound = entry.second;
    INFO("the bound of '" << name << "' must name an output and have its size");
    REQUIRE(exact.outputs().contains(name));
    REQUIRE(bound.size() == expected.at(name).size());
  }
  for (const auto& output : exact.outputs()) {
    const std::string& name = output.first;
    const DType type = output.second;
    const std::vector<double>&want = expected.at(name), &have = found.at(name);
    const auto bound = bounds.find(name);
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double error = std::abs(have[i] - want[i]);
      bool fine;
      if (bound == bounds.end())
        fine = same_value(have[i], rounded(want[i], type));
      else if (std::isfinite(want[i]))
        fine = std::isfinite(bound->second[i]) && error <= bound->second[i] + stored(want[i], type) + kUnderflow;
      else
        fine = same_value(have[i], want[i]);
      if (fine) continue;
      CAPTURE(name);
      CAPTURE(i);
      CAPTURE(error);
      const double limit = bound == bounds.end() ? 0.0 : bound->second[i] + stored(want[i], type);
      CAPTURE(limit);
      CHECK(have[i] == want[i]);
      break;
    }
  }
}

namespace {
void everywhere_on_cpu(const std::function<void(int, bool)>& run) {
  // A new number of threads means a new pool, which takes longer than most cases: one per case, by turning the order
  // around every time; 2 threads take part in every fourth.
  static int turn = 0;
  std::vector<int> counts{1, 1, 3};
  if (++turn % 4 == 0) counts = {1, 1, 2, 3};
  if (turn % 2) std::reverse(counts.begin(), counts.end());
  const cpu::Isa before = cpu::isa();
  for (std::size_t round = 0; round < counts.size(); ++round) {
    set_num_threads(counts[round]);
    for (const cpu::Isa isa : instruction_sets()) {
      CAPTURE(std::string(cpu::to_string(isa)));
      CAPTURE(counts[round]);
      cpu::use_isa(isa);
      run(int(isa), round == 0);
    }
  }
  cpu::use_isa(before);
}
}  // namespace

void everywhere(std::int64_t size, const std::function<void(int, bool)>& run) {
  const DeviceUnderTest& d = device_under_test();
  if (d.device == kCpu) return everywhere_on_cpu(run);
  const int schedules = size > d.most_repeated ? 1 : d.schedules;
  for (int schedule = 0; schedule < schedules; ++schedule) {
    CAPTURE(schedule);
    if (d.use_schedule) d.use_schedule(schedule);
    run(0, schedule == 0);
  }
}

}  // namespace detail
}  // namespace eg::test
