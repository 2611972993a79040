// data/cifar.cpp - CIFAR-10 and CIFAR-100 binary files (Krizhevsky 2009, "Learning multiple layers of features from
// tiny images"). A record is one label byte (CIFAR-10) or a coarse and a fine label byte (CIFAR-100), then 32 x 32 red,
// green and blue planes.
#include <algorithm>
#include <sstream>

#include "data/memory_dataset.h"
#include "engine/file.h"

namespace eg {
namespace {

constexpr std::size_t kPixels = 3 * 32 * 32;

struct Layout {
  const char* name;
  std::size_t label_bytes;
  int classes, coarse_classes;
};

void append_records(const std::filesystem::path& path, const Layout& layout, detail::MemorySplit& split) {
  std::string bytes = read_file(path);
  const std::size_t record = layout.label_bytes + kPixels;
  check(!bytes.empty() && bytes.size() % record == 0, Kind::format, [&] {
    return cat(path.string(), ": ", bytes.size(), " bytes are ", bytes.size() / record, " records of ", record,
               " bytes and ", bytes.size() % record, " bytes more; the file is truncated or no ", layout.name,
               " binary file");
  });
  const std::size_t first = split.labels.size();
  for (std::size_t at = 0; at < bytes.size(); at += record) {
    const int coarse = layout.label_bytes == 2 ? std::uint8_t(bytes[at]) : 0;
    const int fine = std::uint8_t(bytes[at + layout.label_bytes - 1]);
    check(fine < layout.classes && coarse < std::max(1, layout.coarse_classes), Kind::format, [&] {
      return cat(path.string(), ": record ", split.labels.size() - first, " has label ", fine,
                 layout.label_bytes == 2 ? cat(" (coarse ", coarse, ")") : std::string(), "; ", layout.name,
                 " has labels 0..", layout.classes - 1, ": the file is damaged or of another kind");
    });
    split.labels.push_back(fine);
  }
  split.offset = layout.label_bytes;
  split.stride = record;
  if (split.bytes.empty())
    split.bytes = std::move(bytes);
  else
    split.bytes += bytes;
}

/// One name per line; numbers where the file is absent or too short.
std::vector<std::string> read_names(const std::filesystem::path& path, int classes) {
  std::vector<std::string> names;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(path, ignored)) {
    std::istringstream lines(read_file(path, 1 << 20));
    for (std::string line; std::getline(lines, line) && int(names.size()) < classes;) {
      if (!line.empty() && line.back() == '\r') line.pop_back();
      if (!line.empty()) names.push_back(line);
    }
  }
  while (int(names.size()) < classes) names.push_back(std::to_string(names.size()));
  return names;
}

std::unique_ptr<Dataset> assemble(const Layout& layout, std::vector<std::string> names,
                                  std::array<detail::MemorySplit, 2> splits, std::int64_t cache_bytes) {
  return std::make_unique<detail::MemoryDataset>(layout.name, std::move(names), Image{nullptr, 3, 32, 32},
                                                 std::move(splits), cache_bytes);
}

}  // namespace

std::unique_ptr<Dataset> open_cifar10(const std::filesystem::path& dir, const DatasetOptions& options) {
  const Layout layout{"cifar10", 1, 10, 0};
  const auto at = detail::find_data_dir(dir, "cifar-10-batches-bin", "data_batch_1.bin",
                                        "get it with: evergrad data fetch cifar10 --dir DIR");
  std::array<detail::MemorySplit, 2> splits;
  for (int i = 1; i <= 5; ++i) append_records(at / cat("data_batch_", i, ".bin"), layout, splits[0]);
  append_records(at / "test_batch.bin", layout, splits[1]);
  return assemble(layout, read_names(at / "batches.meta.txt", 10), std::move(splits), options.cache_bytes);
}

std::unique_ptr<Dataset> open_cifar100(const std::filesystem::path& dir, const DatasetOptions& options) {
  const Layout layout{"cifar100", 2, 100, 20};
  const auto at = detail::find_data_dir(dir, "cifar-100-binary", "train.bin",
                                        "get it with: evergrad data fetch cifar100 --dir DIR");
  std::array<detail::MemorySplit, 2> splits;
  append_records(at / "train.bin", layout, splits[0]);
  append_records(at / "test.bin", layout, splits[1]);
  return assemble(layout, read_names(at / "fine_label_names.txt", 100), std::move(splits), options.cache_bytes);
}

}  // namespace eg
