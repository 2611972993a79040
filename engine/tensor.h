// engine/tensor.h - a value-semantic handle: shape, dtype, device, shared storage with an offset. Contiguous,
// row-major.
//
// Copying a Tensor copies the handle, never the data; the storage dies with its last handle. TensorView is the borrowed
// form that kernels take: never stored, never owning.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/shape.h"

namespace eg {

/// A block of device memory. Owned by tensors through shared_ptr; pools hand out blocks that return to them.
class Storage {
 public:
  Storage(Device device, std::size_t bytes);  // allocates from the device's runtime
  /// Borrows [data, data + bytes), and calls `on_release` when the last tensor lets go.
  Storage(Device device, void* data, std::size_t bytes, std::function<void()> on_release);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;
  Device device() const { return device_; }
  std::size_t bytes() const { return bytes_; }
  void* data() const { return data_; }

 private:
  Device device_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::function<void()> on_release_;
  bool owned_ = false;
};

/// What a kernel sees of a tensor. An absent optional argument is a default-constructed view (data == nullptr).
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;
  explicit operator bool() const { return data != nullptr; }
  std::int64_t size() const { return shape.size(); }
  std::int64_t rows() const { return shape.rows(); }
  std::int64_t cols() const { return shape.cols(); }
  std::int64_t dim(int i) const { return shape[i]; }
  /// Typed pointer; throws Error{dtype} when T is not the view's type. nullptr stays nullptr.
  template <class T>
  T* as() const {
    check(data == nullptr || dtype == dtype_of<T>, Kind::dtype,
          [&] { return cat("expected ", dtype_of<T>, ", got ", dtype, shape); });
    return static_cast<T*>(data);
  }
};

/// A handle on a contiguous block of numbers with a shape, on one device. Copies share the numbers; clone() does not.
class Tensor {
 public:
  Tensor() = default;  // empty: no storage, operator bool is false
  /// Uninitialised memory from the device's runtime. A step's activations come from an ActivationPool (memory.h)
  /// instead.
  static Tensor empty(const Shape& shape, DType dtype, Device device);
  static Tensor zeros(const Shape& shape, DType dtype, Device device);
  /// Copies host values to the device, converting to dtype. Throws Error{shape} when the count differs.
  static Tensor from(std::span<const double> values, const Shape& shape, DType dtype, Device device);
  static Tensor from(std::span<const float> values, const Shape& shape, DType dtype, Device device);
  static Tensor from(std::span<const std::int32_t> values, const Shape& shape, Device device);
  static Tensor from(std::span<const std::uint8_t> values, const Shape& shape, Device device);
  static Tensor on(std::shared_ptr<Storage> storage, std::int64_t offset_bytes, const Shape& shape, DType dtype);

  explicit operator bool() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  std::int64_t size() const { return shape_.size(); }
  std::int64_t rows() const { return shape_.rows(); }
  std::int64_t cols() const { return shape_.cols(); }
  std::size_t bytes() const { return std::size_t(size()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const;
  void* data() const;
  template <class T>
  T* data_as() const {
    return view().as<T>();
  }
  TensorView view() const { return {data(), dtype_, shape_}; }
  /// Same memory, new shape. Throws Error{shape} when the element count differs. Keeps tape and id.
  Tensor reshape(const Shape& shape) const;
  /// Same memory, `count` rows of the first axis from `begin`. Drops tape and id.
  Tensor slice(std::int64_t begin, std::int64_t count) const;
  /// A new tensor with the same values. Drops tape and id.
  Tensor clone() const;
  Tensor to(Device device) const;  // copy, or the same handle when already there
  /// Values on the host as double (any float or integer dtype).
  std::vector<double> to_host() const;
  void copy_from(const Tensor& other) const;  // same shape and dtype; devices may differ
  void set_zero() const;
  const std::shared_ptr<Storage>& storage() const { return storage_; }
  std::int64_t offset_bytes() const { return offset_; }

  // The autograd tape that recorded this tensor, and its id there. Only autograd/ gives these a meaning.
  void* tape() const { return tape_; }
  std::int64_t tape_id() const { return tape_id_; }
  void set_tape(void* tape, std::int64_t id) { tape_ = tape, tape_id_ = id; }
  Tensor detached() const {
    Tensor t = *this;
    t.set_tape(nullptr, -1);
    return t;
  }

 private:
  std::shared_ptr<Storage> storage_;
  std::int64_t offset_ = 0;
  Shape shape_;
  DType dtype_ = DType::f32;
  void* tape_ = nullptr;
  std::int64_t tape_id_ = -1;
};

/// Prints as "bf16[256,197,768] on cuda:0": what error messages show, never the values.
std::ostream& operator<<(std::ostream& o, const Tensor& t);
std::ostream& operator<<(std::ostream& o, const TensorView& v);

}  // namespace eg
