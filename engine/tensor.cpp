// engine/tensor.cpp - storage, handles and host conversion.
#include "engine/tensor.h"

#include <cstring>

#include "engine/parallel.h"

namespace eg {

const char* to_string(Kind kind) {
  switch (kind) {
    case Kind::usage: return "usage";
    case Kind::shape: return "shape";
    case Kind::dtype: return "dtype";
    case Kind::device: return "device";
    case Kind::io: return "io";
    case Kind::format: return "format";
    case Kind::memory: return "memory";
    case Kind::numeric: return "numeric";
    case Kind::internal: return "internal";
  }
  return "?";
}

Storage::Storage(Device device, std::size_t bytes)
    : device_(device), data_(runtime(device).allocate(bytes)), bytes_(bytes), owned_(true) {}

Storage::Storage(Device device, void* data, std::size_t bytes, std::function<void()> on_release)
    : device_(device), data_(data), bytes_(bytes), on_release_(std::move(on_release)) {}

Storage::~Storage() {
  if (owned_) runtime(device_).release(data_);
  if (on_release_) on_release_();
}

Device Tensor::device() const {
  check(bool(storage_), Kind::usage, [] { return std::string("an empty tensor has no device"); });
  return storage_->device();
}

void* Tensor::data() const { return storage_ ? static_cast<std::byte*>(storage_->data()) + offset_ : nullptr; }

Tensor Tensor::on(std::shared_ptr<Storage> storage, std::int64_t offset_bytes, const Shape& shape, DType dtype) {
  // Divided, not multiplied: the byte count of an absurd shape would wrap around.
  const std::int64_t space = std::int64_t(storage->bytes()) - offset_bytes;
  check(offset_bytes >= 0 && space >= 0 && shape.size() <= space / std::int64_t(size_of(dtype)), Kind::shape, [&] {
    return cat("a ", dtype, shape, " at byte ", offset_bytes, " does not fit a storage of ", storage->bytes(),
               " bytes");
  });
  Tensor t;
  t.storage_ = std::move(storage);
  t.offset_ = offset_bytes;
  t.shape_ = shape;
  t.dtype_ = dtype;
  return t;
}

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  return on(std::make_shared<Storage>(device, std::size_t(shape.size()) * size_of(dtype)), 0, shape, dtype);
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.set_zero();
  return t;
}

namespace {

/// Calls fn with a value of the C++ type behind a dtype.
template <class Fn>
void visit_dtype(DType dtype, Fn&& fn) {
  switch (dtype) {
    case DType::f32: return fn(float{});
    case DType::bf16: return fn(bf16{});
    case DType::i32: return fn(std::int32_t{});
    case DType::u8: return fn(std::uint8_t{});
    case DType::f64: return fn(double{});
  }
}

template <class From>
Tensor from_values(std::span<const From> values, const Shape& shape, DType dtype, Device device) {
  check(std::int64_t(values.size()) == shape.size(), Kind::shape, [&] {
    return cat("Tensor::from: ", values.size(), " values do not fill the shape ", shape, " of ", shape.size(),
               " elements");
  });
  Tensor t = Tensor::empty(shape, dtype, device);
  visit_dtype(dtype, [&]<class To>(To) {
    std::vector<To> host(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) host[i] = static_cast<To>(values[i]);
    runtime(device).copy_from_host(t.data(), host.data(), t.bytes(), {});
    runtime(device).synchronize({});
  });
  return t;
}

}  // namespace

Tensor Tensor::from(std::span<const double> v, const Shape& s, DType t, Device d) { return from_values(v, s, t, d); }
Tensor Tensor::from(std::span<const float> v, const Shape& s, DType t, Device d) { return from_values(v, s, t, d); }
Tensor Tensor::from(std::span<const std::int32_t> v, const Shape& s, Device d) {
  check(std::int64_t(v.size()) == s.size(), Kind::shape,
        [&] { return cat("Tensor::from: ", v.size(), " values do not fill the shape ", s); });
  Tensor t = empty(s, DType::i32, d);
  runtime(d).copy_from_host(t.data(), v.data(), t.bytes(), {});
  runtime(d).synchronize({});
  return t;
}
Tensor Tensor::from(std::span<const std::uint8_t> v, const Shape& s, Device d) {
  check(std::int64_t(v.size()) == s.size(), Kind::shape,
        [&] { return cat("Tensor::from: ", v.size(), " values do not fill the shape ", s); });
  Tensor t = empty(s, DType::u8, d);
  runtime(d).copy_from_host(t.data(), v.data(), t.bytes(), {});
  runtime(d).synchronize({});
  return t;
}

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.size() == size(), Kind::shape,
        [&] { return cat("cannot reshape ", *this, " to ", shape, ": ", size(), " elements against ", shape.size()); });
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t count) const {
  check(rank() >= 1 && begin >= 0 && count >= 0 && begin <= dim(0) && count <= dim(0) - begin, Kind::shape,
        [&] { return cat("cannot take ", count, " rows from row ", begin, " of ", *this); });
  Shape shape = shape_;
  shape[0] = count;
  const std::int64_t row_bytes = dim(0) ? std::int64_t(bytes()) / dim(0) : 0;
  return on(storage_, offset_ + begin * row_bytes, shape, dtype_);
}

Tensor Tensor::clone() const {
  Tensor t = empty(shape_, dtype_, device());
  t.copy_from(*this);
  return t;
}

Tensor Tensor::to(Device target) const {
  if (target == device()) return *this;
  Tensor t = empty(shape_, dtype_, target);
  t.copy_from(*this);
  return t;
}

void Tensor::copy_from(const Tensor& other) const {
  check(other.shape() == shape_ && other.dtype() == dtype_, Kind::shape,
        [&] { return cat("cannot copy ", other, " into ", *this, ": shape and dtype must be equal"); });
  const Device a = other.device(), b = device();
  if (a == b) {
    runtime(b).copy_within(data(), other.data(), bytes(), {});
  } else if (a.is_host()) {
    runtime(b).copy_from_host(data(), other.data(), bytes(), {});
  } else if (b.is_host()) {
    runtime(a).copy_to_host(data(), other.data(), bytes(), {});
  } else {
    std::vector<std::byte> staging(bytes());
    runtime(a).copy_to_host(staging.data(), other.data(), bytes(), {});
    runtime(a).synchronize({});
    runtime(b).copy_from_host(data(), staging.data(), bytes(), {});
  }
  runtime(a).synchronize({});
  runtime(b).synchronize({});
}

void Tensor::set_zero() const { runtime(device()).set_zero(data(), bytes(), {}); }

std::vector<double> Tensor::to_host() const {
  std::vector<double> out(static_cast<std::size_t>(size()));
  if (out.empty()) return out;
  std::vector<std::byte> raw(bytes());
  runtime(device()).copy_to_host(raw.data(), data(), bytes(), {});
  runtime(device()).synchronize({});
  visit_dtype(dtype_, [&]<class T>(T) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      T value;
      std::memcpy(&value, raw.data() + i * sizeof(T), sizeof(T));
      out[i] = static_cast<double>(value);
    }
  });
  return out;
}

std::ostream& operator<<(std::ostream& o, const Tensor& t) {
  if (!t) return o << "an empty tensor";
  return o << t.dtype() << t.shape() << " on " << t.device();
}
std::ostream& operator<<(std::ostream& o, const TensorView& v) {
  if (!v) return o << "an absent tensor";
  return o << v.dtype << v.shape;
}

}  // namespace eg
