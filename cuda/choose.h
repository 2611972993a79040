// cuda/choose.h - several ways to compute one table entry, and the choice between them for one call.
//
// A wrapper lists its ways, the one of its own rule first, and hands them to run_chosen(). Which way that takes is decided in
// engine/kernel_choices.h; here are the two things that decision needs of a backend: running a way on memory of its own, and
// knowing whether the stream is being recorded.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "engine/kernel_choices.h"
#include "engine/kernels.h"

#ifndef EVERGRAD_BACKEND
#error "EVERGRAD_BACKEND must be cuda_backend or emulated_backend; the build system of cuda/ sets it."
#endif

namespace eg::EVERGRAD_BACKEND {

// What each backend answers (device/choices.cpp, emulated/choices.cpp).
Device current_device();
bool is_recording(Stream stream);

template <class Args>
struct Way {
  KernelImplementation implementation;
  std::function<void(const Args&, Stream)> run;
};

/// Runs ways on a call's inputs, with memory of its own for the outputs.
template <class Args>
class Trial final : public KernelTrial {
 public:
  using Outputs = std::vector<TensorView Args::*>;
  Trial(const Args& args, const std::vector<Way<Args>>& ways, const Outputs& outputs, Stream stream)
      : args_(args), ways_(ways), device_(current_device()), stream_(stream) {
    for (TensorView Args::*const member : outputs)
      if (TensorView& v = args_.*member; v && v.size() > 0) {
        Output o{v, Tensor::empty(v.shape, v.dtype, device_)};
        v = o.mine.view();
        outputs_.push_back(std::move(o));
      }
  }
  ~Trial() override {
    try {
      runtime(device_).synchronize(stream_);  // what was timed last may still be queued
    } catch (const Error&) {
      // The same fault shows at the next wait.
    }
  }
  void prepare() override {
    for (const Output& o : outputs_)
      runtime(device_).copy_within(o.mine.data(), o.theirs.data, o.mine.bytes(), stream_);
  }
  Stream stream() const override { return stream_; }
  void run(std::size_t i) override { ways_[i].run(args_, stream_); }
  std::vector<std::vector<float>> results() override {
    std::vector<std::vector<float>> all;
    for (const Output& o : outputs_) all.push_back(sample(o.mine));
    return all;
  }

 private:
  struct Output {
    TensorView theirs;
    Tensor mine;
  };
  static constexpr std::int64_t kRows = 64;

  /// Some rows at even distances, the first and the last among them: a whole activation would take longer to fetch than to
  /// compute.
  std::vector<float> sample(const Tensor& t) const {
    const std::int64_t rows = t.rows(), cols = t.cols(), taken = std::min(rows, kRows);
    const std::size_t row_bytes = std::size_t(cols) * size_of(t.dtype());
    std::vector<std::byte> bytes(std::size_t(taken) * row_bytes);
    for (std::int64_t i = 0; i < taken; ++i) {
      const std::int64_t row = taken > 1 ? i * (rows - 1) / (taken - 1) : 0;
      runtime(device_).copy_to_host(bytes.data() + std::size_t(i) * row_bytes,
                                    static_cast<const char*>(t.data()) + std::size_t(row) * row_bytes, row_bytes,
                                    stream_);
    }
    runtime(device_).synchronize(stream_);
    std::vector<float> values(std::size_t(taken * cols));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = t.dtype() == DType::bf16 ? float(reinterpret_cast<const bf16*>(bytes.data())[i])
                                           : reinterpret_cast<const float*>(bytes.data())[i];
    return values;
  }

  Args args_;
  const std::vector<Way<Args>>& ways_;
  const Device device_;
  const Stream stream_;
  std::vector<Output> outputs_;
};

/// `call` names all that the list of ways and their speed depend on. `outputs`: the views that the call writes, of type f32 or
/// bf16.
template <class Args>
void run_chosen(KernelChoices& choices, const std::string& call, const std::vector<Way<Args>>& ways, const Args& args,
                const typename Trial<Args>::Outputs& outputs, Stream stream) {
  std::vector<KernelImplementation> all;
  for (const Way<Args>& way : ways) all.push_back(way.implementation);
  const std::size_t i = choices.choose(call, all, is_recording(stream),
                                       [&] { return std::make_unique<Trial<Args>>(args, ways, outputs, stream); });
  ways[i].run(args, stream);
}

}  // namespace eg::EVERGRAD_BACKEND
