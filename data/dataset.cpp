// data/dataset.cpp - what all data sets share, and the way in by name.
#include "data/dataset.h"

#include "engine/error.h"

namespace eg {

const char* to_string(Split split) { return split == Split::train ? "train" : "test"; }

void Dataset::check_index(Split split, std::int64_t i) const {
  check(i >= 0 && i < size(split), Kind::usage, [&] {
    return cat("image ", i, " of ", name(), "'s ", to_string(split), " split is outside 0..", size(split) - 1);
  });
}

void Dataset::check_class(int c) const {
  check(c >= 0 && c < classes(), Kind::usage,
        [&] { return cat("class ", c, " of ", name(), " is outside 0..", classes() - 1); });
}

void Dataset::warn_of_empty_classes(const std::vector<std::vector<std::int64_t>>& of_class) {
  int empty = 0, first = 0;
  for (int c = int(of_class.size()); c-- > 0;)
    if (of_class[std::size_t(c)].empty()) ++empty, first = c;
  if (empty)
    warnings_.push_back(cat(name(), ": ", empty, " of ", of_class.size(),
                            " classes have no training image, the first is '", class_name(first), "'"));
}

const std::vector<std::string>& dataset_kinds() {
  static const std::vector<std::string> kinds{"procedural", "cifar10", "cifar100", "idx", "folder"};
  return kinds;
}

std::shared_ptr<const Dataset> open_dataset(const std::string& kind, const std::filesystem::path& dir,
                                            const DatasetOptions& options) {
  if (kind == "procedural") return make_procedural(options.procedural);
  if (kind == "idx") return open_idx(dir, options);
  if (kind.rfind("sequence:", 0) == 0) return open_sequence(kind.substr(9), dir, options);
  const bool known = kind == "cifar10" || kind == "cifar100" || kind == "folder";
  check(known, Kind::usage, [&] {
    return cat("unknown data set kind '", kind,
               "'; there are procedural, cifar10, cifar100, idx, folder and sequence:PART+PART");
  });
  check(!dir.empty(), Kind::usage, [&] {
    return cat("the data set ", kind, " needs the folder that holds its files: add --data DIR",
               kind == "folder" ? "" : cat("; evergrad data fetch ", kind, " --dir DIR downloads them"));
  });
  std::error_code ignored;
  check(std::filesystem::is_directory(dir, ignored), Kind::io,
        [&] { return cat(dir.string(), " is not a folder; --data names the folder that holds the ", kind, " files"); });
  if (kind == "cifar10") return open_cifar10(dir, options);
  if (kind == "cifar100") return open_cifar100(dir, options);
  return open_folder(dir, options);
}

}  // namespace eg
