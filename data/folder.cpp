// data/folder.cpp - folders of JPEG, PNG and BMP images (ImageNet-R, Tiny-ImageNet, Omniglot and the like). A class is
// a folder that directly holds images, named by its path below the root. train/ with test/ or val/ are used when
// present; otherwise a share (a fifth) of every class is its test set, drawn by seed.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "data/image_file.h"
#include "data/pixels.h"
#include "engine/error.h"
#include "engine/parallel.h"
#include "engine/rng.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

bool is_image(const fs::path& path) {
  std::string ext = path.extension().string();
  std::transform(ext.begin(), ext.end(), ext.begin(), [](unsigned char ch) { return char(std::tolower(ch)); });
  return ext == ".jpg" || ext == ".jpeg" || ext == ".png" || ext == ".bmp";
}

/// Class name -> its files, both sorted by name, whatever order the file system lists them in.
using Tree = std::map<std::string, std::vector<fs::path>>;

Tree scan(const fs::path& root) {
  Tree tree;
  std::error_code error;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (!is_image(it->path()) || !it->is_regular_file(ignored)) continue;
    std::string name = it->path().parent_path().lexically_relative(root).generic_string();
    tree[name == "." ? root.filename().string() : name].push_back(it->path());
  }
  check(!error, Kind::io, [&] { return cat("cannot list ", root.string(), ": ", error.message()); });
  for (auto& [name, files] : tree) std::sort(files.begin(), files.end());
  return tree;
}

struct FolderSplit {
  std::vector<fs::path> files;
  std::vector<std::int32_t> labels;
  std::vector<std::vector<std::int64_t>> of_class;
  std::unique_ptr<detail::ImageCache> cache;
};

class FolderDataset final : public Dataset {
 public:
  FolderDataset(const fs::path& root, const DatasetOptions& options) : name_("folder:" + root.filename().string()) {
    std::error_code ignored;
    fs::path test = fs::is_directory(root / "test", ignored) ? root / "test" : root / "val";
    if (fs::is_directory(root / "train", ignored) && fs::is_directory(test, ignored))
      from_two_folders(root / "train", test);
    else
      from_one_folder(root, options.split_seed, options.test_share);
    if (options.on_corrupt == OnCorrupt::skip) drop_corrupt();
    for (FolderSplit& s : splits_) {
      s.of_class = detail::group_by_label(s.labels, classes());
      s.cache = std::make_unique<detail::ImageCache>(std::int64_t(s.files.size()), options.cache_bytes / 2);
    }
    check(!splits_[0].files.empty(), Kind::format, [&] {
      return cat(root.string(), ": no readable image is left for training; JPEG, PNG and BMP files are read");
    });
    warn_of_empty_classes(splits_[0].of_class);
  }
  std::string name() const override { return name_; }
  int classes() const override { return int(names_.size()); }
  std::string class_name(int c) const override {
    check_class(c);
    return names_[std::size_t(c)];
  }
  std::int64_t size(Split split) const override { return std::int64_t(part(split).files.size()); }
  std::int32_t label(Split split, std::int64_t i) const override {
    check_index(split, i);
    return part(split).labels[std::size_t(i)];
  }
  std::vector<std::int64_t> indices_of(Split split, int c) const override {
    check_class(c);
    return part(split).of_class[std::size_t(c)];
  }
  void image(Split split, std::int64_t i, ImageFormat format, std::uint8_t* out) const override {
    check_index(split, i);
    check_format(format);
    const FolderSplit& s = part(split);
    if (s.cache->get(i, format, out)) return;
    read_image(s.files[std::size_t(i)], format, out);
    s.cache->put(i, format, out);
  }
  ImageFormat native() const override { return {3, 0}; }

 private:
  const FolderSplit& part(Split split) const { return splits_[std::size_t(split)]; }

  void add(FolderSplit& split, const fs::path& file, std::size_t c) {
    split.files.push_back(file);
    split.labels.push_back(std::int32_t(c));
  }

  void from_two_folders(const fs::path& train, const fs::path& test) {
    const Tree a = scan(train), b = scan(test);
    require_images(a, train);
    require_images(b, test);
    for (const auto& [name, files] : a) {
      for (const fs::path& file : files) add(splits_[0], file, names_.size());
      names_.push_back(name);
    }
    for (const auto& [name, files] : b) {
      const auto at = std::lower_bound(names_.begin(), names_.end(), name);
      check(at != names_.end() && *at == name, Kind::format, [&, name = name] {
        return cat(test.string(), " has the class '", name, "', which ", train.string(),
                   " lacks; both need the same class folders");
      });
      for (const fs::path& file : files) add(splits_[1], file, std::size_t(at - names_.begin()));
    }
  }

  void from_one_folder(const fs::path& root, std::uint64_t seed, double test_share) {
    check(test_share > 0.0 && test_share < 1.0, Kind::usage, [&] {
      return cat("a test share of ", test_share, " leaves no image to train or to test with; use 0.01..0.99");
    });
    const Tree tree = scan(root);
    require_images(tree, root);
    for (const auto& [name, files] : tree) {
      std::vector<std::size_t> order(files.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
      shuffle(order.begin(), order.size(), key(seed, "data/split", name));
      const auto nearest = std::size_t(std::floor(double(files.size()) * test_share + 0.5));
      const std::size_t tests = files.size() < 2 ? 0 : std::clamp<std::size_t>(nearest, 1, files.size() - 1);
      std::sort(order.begin(), order.begin() + std::ptrdiff_t(tests));
      std::sort(order.begin() + std::ptrdiff_t(tests), order.end());
      for (std::size_t i = 0; i < order.size(); ++i) add(splits_[i < tests ? 1 : 0], files[order[i]], names_.size());
      names_.push_back(name);
    }
  }

  void require_images(const Tree& tree, const fs::path& root) const {
    check(!tree.empty(), Kind::format, [&] {
      return cat(root.string(), " and its subfolders hold no JPEG, PNG or BMP image; a class is a folder of images");
    });
  }

  /// Decodes every file once, in parallel, and leaves out what cannot be decoded.
  void drop_corrupt() {
    for (FolderSplit& s : splits_) {
      std::vector<std::string> damage(s.files.size());
      parallel_for(std::int64_t(s.files.size()), 16, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
        for (std::int64_t i = begin; i < end; ++i) {
          const fs::path& file = s.files[std::size_t(i)];
          try {
            detail::decode_file(file);
          } catch (const Error& e) { damage[std::size_t(i)] = e.what(); }
        }
      });
      FolderSplit kept;
      for (std::size_t i = 0; i < damage.size(); ++i) {
        if (damage[i].empty())
          add(kept, s.files[i], std::size_t(s.labels[i]));
        else
          warnings_.push_back("skipped " + damage[i]);
      }
      s = std::move(kept);
    }
  }

  std::string name_;
  std::vector<std::string> names_;
  std::array<FolderSplit, 2> splits_;
};

}  // namespace

std::unique_ptr<Dataset> open_folder(const fs::path& dir, const DatasetOptions& options) {
  std::error_code ignored;
  check(fs::is_directory(dir, ignored), Kind::io, [&] { return cat(dir.string(), " is not a folder"); });
  fs::path root = fs::weakly_canonical(dir);
  if (root.filename().empty()) root = root.parent_path();
  return std::make_unique<FolderDataset>(root, options);
}

}  // namespace eg
