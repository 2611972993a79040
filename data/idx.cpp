// data/idx.cpp - the IDX format of MNIST (LeCun, Cortes, Burges) and its descendants, plain or gzip-compressed. A file
// is 0 0 <type> <axes>, one big-endian 32-bit extent per axis, then the values; images are u8 with three axes, labels
// u8 with one.
#include <algorithm>
#include <sstream>

#include "data/fetch.h"
#include "data/memory_dataset.h"
#include "engine/file.h"

namespace eg {
namespace {

constexpr const char* kDebianFashionMnist = "/usr/share/datasets/fashion-mnist";
constexpr std::uint64_t kMaxFile = std::uint64_t(1) << 31;

struct Idx {
  std::string bytes;
  std::vector<std::uint64_t> extents;
  std::size_t offset = 0;
};

std::filesystem::path locate(const std::filesystem::path& dir, const std::string& stem) {
  std::error_code ignored;
  // Debian and the original site separate the parts by '-', some copies by '.'.
  std::string dotted = stem;
  if (const auto at = dotted.find("-idx"); at != std::string::npos) dotted[at] = '.';
  for (const std::string& name : {stem, stem + ".gz", dotted, dotted + ".gz"})
    if (std::filesystem::exists(dir / name, ignored)) return dir / name;
  fail(Kind::io, cat("no ", stem, " or ", stem, ".gz in ", dir.string(),
                     "; --data names the folder that holds the four IDX files, and `evergrad data fetch fashion-mnist` "
                     "or Debian's package dataset-fashion-mnist brings them"));
}

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::uint8_t(bytes[at + i]);
  return value;
}

Idx read_idx(const std::filesystem::path& path, std::size_t axes) {
  Idx idx;
  idx.bytes = read_file(path, kMaxFile);
  if (path.extension() == ".gz") idx.bytes = gunzip(idx.bytes, kMaxFile, path.string());
  idx.offset = 4 + 4 * axes;
  check(idx.bytes.size() >= idx.offset, Kind::format, [&] {
    return cat(path.string(), ": ", idx.bytes.size(), " bytes are too few for an IDX header of ", idx.offset);
  });
  const std::uint32_t magic = big_endian(idx.bytes, 0), expected = 0x0800u + std::uint32_t(axes);
  check(magic == expected, Kind::format, [&] {
    return cat(path.string(), ": wrong magic number ", magic, "; an IDX file of u8 with ", axes, " axes starts with ",
               expected);
  });
  std::uint64_t values = 1;
  const std::uint64_t held = idx.bytes.size() - idx.offset;
  std::string dims;
  for (std::size_t i = 0; i < axes; ++i) {
    idx.extents.push_back(big_endian(idx.bytes, 4 + 4 * i));
    dims += cat(i ? " x " : "", idx.extents.back());
    // Stays below 2^64: the product so far is at most `held`, below 2^31, whenever the loop goes on.
    values *= idx.extents.back();
    check(idx.extents.back() > 0 && values <= held, Kind::format, [&] {
      return cat(path.string(), ": the header claims ", dims, i + 1 < axes ? " x ... " : " ", "values but ", held,
                 " bytes follow it; the file is truncated or its header is wrong");
    });
  }
  check(values == held, Kind::format, [&] {
    return cat(path.string(), ": the header claims ", dims, " = ", values, " values but ", held, " bytes follow it");
  });
  return idx;
}

struct IdxSplit {
  detail::MemorySplit split;
  int height = 0, width = 0;
  std::filesystem::path images, labels;
};

IdxSplit read_split(const std::filesystem::path& dir, const std::string& prefix) {
  IdxSplit result;
  result.images = locate(dir, prefix + "-images-idx3-ubyte");
  const auto labels_path = result.labels = locate(dir, prefix + "-labels-idx1-ubyte");
  Idx images = read_idx(result.images, 3);
  const Idx labels = read_idx(labels_path, 1);
  check(images.extents[0] == labels.extents[0], Kind::format, [&] {
    return cat(result.images.string(), " holds ", images.extents[0], " images but ", labels_path.string(), " holds ",
               labels.extents[0], " labels; the two files do not belong together");
  });
  check(images.extents[1] <= 4096 && images.extents[2] <= 4096, Kind::format, [&] {
    return cat(result.images.string(), ": images of ", images.extents[1], " x ", images.extents[2],
               " pixels; at most 4096 x 4096 are accepted");
  });
  result.height = int(images.extents[1]);
  result.width = int(images.extents[2]);
  for (std::size_t i = labels.offset; i < labels.bytes.size(); ++i)
    result.split.labels.push_back(std::uint8_t(labels.bytes[i]));
  result.split.bytes = std::move(images.bytes);
  result.split.offset = images.offset;
  result.split.stride = std::size_t(result.height) * std::size_t(result.width);
  return result;
}

std::vector<std::string> class_names(const std::filesystem::path& dir, int classes) {
  std::vector<std::string> names;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(dir / "class_names.txt", ignored)) {
    std::istringstream lines(read_file(dir / "class_names.txt", 1 << 20));
    for (std::string line; std::getline(lines, line);) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) names.push_back(line);
    }
    check(int(names.size()) >= classes, Kind::format, [&] {
      return cat((dir / "class_names.txt").string(), ": ", names.size(), " names for ", classes, " classes");
    });
    names.resize(std::size_t(classes));  // more names than labels must not make classes without images
    return names;
  }
  if (classes == 10 && dir.string().find("fashion") != std::string::npos)
    return {"T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"};
  for (int c = 0; c < classes; ++c) names.push_back(std::to_string(c));
  return names;
}

}  // namespace

std::unique_ptr<Dataset> open_idx(const std::filesystem::path& dir_or_empty, const DatasetOptions& options) {
  const std::filesystem::path dir = dir_or_empty.empty() ? kDebianFashionMnist : dir_or_empty;
  std::error_code ignored;
  check(std::filesystem::is_directory(dir, ignored), Kind::io, [&] {
    return cat(dir.string(),
               " is not a folder; --data names the folder with the four IDX files (without --data, "
               "Fashion-MNIST of Debian's package dataset-fashion-mnist is used)");
  });
  IdxSplit train = read_split(dir, "train"), test = read_split(dir, "t10k");
  check(train.height == test.height && train.width == test.width, Kind::format, [&] {
    return cat(train.images.string(), " has images of ", train.height, " x ", train.width, " but ",
               test.images.string(), " of ", test.height, " x ", test.width);
  });
  const int classes = 1 + *std::max_element(train.split.labels.begin(), train.split.labels.end());
  const int tested = *std::max_element(test.split.labels.begin(), test.split.labels.end());
  check(tested < classes, Kind::format, [&] {
    return cat(test.labels.string(), ": a test label is ", tested, " but training labels end at ", classes - 1);
  });
  std::array<detail::MemorySplit, 2> splits;
  splits[0] = std::move(train.split);
  splits[1] = std::move(test.split);
  return std::make_unique<detail::MemoryDataset>(cat("idx:", dir.filename().string()), class_names(dir, classes),
                                                 Image{nullptr, 1, train.height, train.width}, std::move(splits),
                                                 options.cache_bytes);
}

}  // namespace eg
