// data/image_file.h - one JPEG, PNG or BMP file as a network sees it.
#pragma once
#include <cstdint>
#include <filesystem>

#include "data/dataset.h"

namespace eg {

/// Decodes the file and writes format.bytes() planar 8-bit pixels to out: grey copied to three channels or RGB reduced
/// to luma, then resized to a square (the aspect ratio is not kept). Folder data sets read their images this way.
/// Throws Error{io} when the file cannot be read or has more than 256 MiB, Error{format} naming the file when it is no
/// such image, is damaged or claims more than 2^26 pixels, Error{usage} for a bad format.
void read_image(const std::filesystem::path& file, ImageFormat format, std::uint8_t* out);

}  // namespace eg
