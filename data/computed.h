// data/computed.h - a data set that is a function: an image is computed whenever it is asked for, and nothing is stored.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "data/dataset.h"

namespace eg {

/// What a computed data set holds. Image i of either split has class i % classes.
struct ComputedOptions {
  std::string name;
  int classes = 2;
  std::int64_t train = 0, test = 0;  // images of each split
  ImageFormat native;                // what the loader asks for unless told otherwise
};
/// Writes image i, format.bytes() bytes, planar [channel, row, column]. Called from several threads at once; it must give
/// the same pixels whenever it is asked, so random numbers are those of a Key (engine/rng.h) made of split and i.
using ComputedImage =
    std::function<void(Split split, std::int64_t i, int label, ImageFormat format, std::uint8_t* out)>;

/// Throws Error{usage} unless there is a name, a class, an image in each split, a valid format and a function.
std::shared_ptr<const Dataset> computed_dataset(const ComputedOptions& options, ComputedImage image);

}  // namespace eg
