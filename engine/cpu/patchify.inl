// engine/cpu/patchify.inl - images to patch vectors and back (see patchify.cpp), for one instruction set.

// Copies `count` pieces of `bytes` each from consecutive memory to places `stride` bytes apart.
template <std::size_t bytes>
void scatter_pieces(const char* from, char* to, std::int64_t count, std::size_t stride) {
  for (std::int64_t i = 0; i < count; ++i)
    std::memcpy(to + std::size_t(i) * stride, from + std::size_t(i) * bytes, bytes);
}
inline void scatter_pieces(const char* from, char* to, std::int64_t count, std::size_t bytes, std::size_t stride) {
  switch (bytes) {  // a constant size turns each copy into a few instructions
    case 8: return scatter_pieces<8>(from, to, count, stride);
    case 16: return scatter_pieces<16>(from, to, count, stride);
    case 32: return scatter_pieces<32>(from, to, count, stride);
    case 64: return scatter_pieces<64>(from, to, count, stride);
    default:
      for (std::int64_t i = 0; i < count; ++i)
        std::memcpy(to + std::size_t(i) * stride, from + std::size_t(i) * bytes, bytes);
  }
}

// `size` pixels of row y starting at column `left`, reversed when flipped, zero outside the image.
template <class S>
const S* image_row(const S* plane, std::int64_t height, std::int64_t width, std::int64_t y, std::int64_t left,
                   bool flip, std::int64_t size, S* buffer) {
  if (y < 0 || y >= height) {
    std::fill(buffer, buffer + size, S());
    return buffer;
  }
  const S* const row = plane + y * width;
  if (!flip && left >= 0 && left + size <= width) return row + left;
  for (std::int64_t x = 0; x < size; ++x) {
    const std::int64_t at = left + (flip ? size - 1 - x : x);
    buffer[x] = at >= 0 && at < width ? row[at] : S();
  }
  return buffer;
}

template <class S, class T>
void patchify_image(const PatchifyFwd& a, const float* factor, const float* offset, std::int64_t image) {
  const std::int64_t channels = a.images.dim(1), height = a.images.dim(2), width = a.images.dim(3);
  const std::int64_t size = a.size, P = a.patch, across = size / P, length = channels * P * P;
  const std::int32_t* const crop = a.crop ? a.crop.as<std::int32_t>() + 3 * image : nullptr;
  const std::int64_t top = crop ? crop[0] : 0, left = crop ? crop[1] : 0;
  float* const scratch = thread_scratch(std::size_t(2 * padded_row(size)));
  S* const buffer = reinterpret_cast<S*>(scratch);
  T* const line = reinterpret_cast<T*>(scratch + padded_row(size));
  T* const out = a.out.as<T>() + image * across * across * length;
  for (std::int64_t c = 0; c < channels; ++c) {
    const F32 scale = broadcast(factor[c]), shift = broadcast(offset[c]);
    const S* const plane = a.images.as<S>() + (image * channels + c) * height * width;
    for (std::int64_t y = 0; y < size; ++y) {
      const S* const row = image_row(plane, height, width, top + y, left, crop && crop[2], size, buffer);
      for_each_vector(size, [&](std::int64_t i, std::int64_t n) {
        store_some(line + i, fma(load_some(row + i, n), scale, shift), n);
      });
      T* const to = out + (y / P) * across * length + (c * P + y % P) * P;
      scatter_pieces(reinterpret_cast<const char*>(line), reinterpret_cast<char*>(to), across,
                     std::size_t(P) * sizeof(T), std::size_t(length) * sizeof(T));
    }
  }
}

inline void patchify_fwd(const PatchifyFwd& a, const float* factor, const float* offset) {
  const auto all = [&](auto source, auto target) {
    parallel_for(a.images.dim(0), 1, [&](std::int64_t image, std::int64_t, std::int64_t) {
      patchify_image<decltype(source), decltype(target)>(a, factor, offset, image);
    });
  };
  with_activation("patchify_fwd", a.out.dtype, [&](auto target) {
    if (a.images.dtype == DType::u8) return all(std::uint8_t(), target);
    with_activation("patchify_fwd", a.images.dtype, [&](auto source) { all(source, target); });
  });
}

template <class S, class T>
void unpatchify_image(const PatchifyBwd& a, const float* factor, std::int64_t image) {
  const std::int64_t channels = a.dimages.dim(1), height = a.dimages.dim(2), width = a.dimages.dim(3);
  const std::int64_t P = a.patch, across = width / P, length = channels * P * P;
  const T* const from = a.dout.as<T>() + image * (height / P) * across * length;
  for (std::int64_t c = 0; c < channels; ++c) {
    const F32 scale = broadcast(factor[c]);
    for (std::int64_t y = 0; y < height / P * P; ++y)
      for (std::int64_t x = 0; x < across; ++x) {
        const T* const piece = from + ((y / P) * across + x) * length + (c * P + y % P) * P;
        S* const to = a.dimages.as<S>() + ((image * channels + c) * height + y) * width + x * P;
        for_each_vector(P, [&](std::int64_t i, std::int64_t n) {
          F32 v = load_some(piece + i, n) * scale;
          if (a.accumulate) v += load_some(to + i, n);
          store_some(to + i, v, n);
        });
      }
  }
}

inline void patchify_bwd(const PatchifyBwd& a, const float* factor) {
  with_activation("patchify_bwd", a.dout.dtype, [&](auto source) {
    with_activation("patchify_bwd", a.dimages.dtype, [&](auto target) {
      parallel_for(a.dimages.dim(0), 1, [&](std::int64_t image, std::int64_t, std::int64_t) {
        unpatchify_image<decltype(target), decltype(source)>(a, factor, image);
      });
    });
  });
}
