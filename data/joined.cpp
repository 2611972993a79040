// data/joined.cpp - several data sets as one: CIFAR-100, then Fashion-MNIST, then Omniglot.
#include <algorithm>
#include <sstream>

#include "data/dataset.h"
#include "engine/error.h"

namespace eg {
namespace {

namespace fs = std::filesystem;

class JoinedDataset final : public Dataset {
 public:
  JoinedDataset(std::vector<std::shared_ptr<const Dataset>> parts, std::vector<std::string> names)
      : parts_(std::move(parts)), names_(std::move(names)) {
    check(!parts_.empty() && parts_.size() == names_.size(), Kind::usage, [&] {
      return cat("a joined data set needs parts and as many names, got ", parts_.size(), " and ", names_.size());
    });
    std::int64_t classes = 0;
    for (const auto& part : parts_) {
      first_class_.push_back(int(classes));
      for (int s = 0; s < 2; ++s) first_[s].push_back(first_[s].empty() ? 0 : last_[s]);
      for (int s = 0; s < 2; ++s) last_[s] = first_[s].back() + part->size(Split(s));
      classes += part->classes();
      for (const std::string& warning : part->warnings()) warnings_.push_back(warning);
    }
    check(classes < std::int64_t(1) << 31, Kind::usage,
          [&] { return cat("the joined data sets have ", classes, " classes; 2^31 - 1 at most"); });
    classes_ = int(classes);
  }
  std::string name() const override {
    std::string text;
    for (const std::string& n : names_) text += (text.empty() ? "" : "+") + n;
    return text;
  }
  int classes() const override { return classes_; }
  std::string class_name(int c) const override {
    check_class(c);
    const std::size_t p = part_of_class(c);
    return names_[p] + "/" + parts_[p]->class_name(c - first_class_[p]);
  }
  std::int64_t size(Split split) const override { return last_[std::size_t(split)]; }
  std::int32_t label(Split split, std::int64_t i) const override {
    const auto [p, local] = locate(split, i);
    return first_class_[p] + parts_[p]->label(split, local);
  }
  std::vector<std::int64_t> indices_of(Split split, int c) const override {
    check_class(c);
    const std::size_t p = part_of_class(c);
    std::vector<std::int64_t> indices = parts_[p]->indices_of(split, c - first_class_[p]);
    for (std::int64_t& i : indices) i += first_[std::size_t(split)][p];
    return indices;
  }
  void image(Split split, std::int64_t i, ImageFormat format, std::uint8_t* out) const override {
    const auto [p, local] = locate(split, i);
    parts_[p]->image(split, local, format, out);
  }
  /// Channels of the richest part; the parts' own size where they agree on one.
  ImageFormat native() const override {
    ImageFormat f = parts_[0]->native();
    for (const auto& part : parts_) {
      const ImageFormat other = part->native();
      f.channels = std::max(f.channels, other.channels);
      if (other.size != f.size) f.size = 0;
    }
    return f;
  }
  std::vector<DatasetPart> parts() const override {
    std::vector<DatasetPart> all;
    for (std::size_t p = 0; p < parts_.size(); ++p) all.push_back({names_[p], first_class_[p], parts_[p]->classes()});
    return all;
  }

 private:
  std::size_t part_of_class(int c) const {
    return std::size_t(std::upper_bound(first_class_.begin(), first_class_.end(), c) - first_class_.begin()) - 1;
  }
  std::pair<std::size_t, std::int64_t> locate(Split split, std::int64_t i) const {
    check_index(split, i);
    const std::vector<std::int64_t>& first = first_[std::size_t(split)];
    const auto p = std::size_t(std::upper_bound(first.begin(), first.end(), i) - first.begin()) - 1;
    return {p, i - first[p]};
  }

  std::vector<std::shared_ptr<const Dataset>> parts_;
  std::vector<std::string> names_;
  std::vector<int> first_class_;
  std::vector<std::int64_t> first_[2];  // by split: the index of each part's first image
  std::int64_t last_[2] = {0, 0};       // by split: images of all parts
  int classes_ = 0;
};

/// The first of these folders below dir that exists; dir itself is written "".
fs::path below(const fs::path& dir, const std::string& part, std::initializer_list<const char*> names) {
  std::error_code ignored;
  std::string tried;
  for (const char* name : names) {
    const fs::path folder = *name ? dir / name : dir;
    if (!dir.empty() && fs::is_directory(folder, ignored)) return folder;
    tried += cat(tried.empty() ? "" : ", ", folder.string());
  }
  fail(Kind::usage, cat("the sequence's part '", part, "' was not found: ",
                        dir.empty() ? std::string("no --data names the folder that holds it")
                                    : cat("none of these is a folder: ", tried),
                        "; write ", part, "=DIR to say where it is"));
}

std::shared_ptr<const Dataset> open_part(const std::string& part, fs::path dir, const fs::path& all,
                                         const DatasetOptions& options) {
  if (part == "procedural") {
    ProceduralOptions p = options.procedural;
    p.classes = std::min(p.classes, 1000);  // a part gets as many outputs as it has classes, where labels are global
    return make_procedural(p);
  }
  if (part == "fashion-mnist") {
    std::error_code ignored;
    if (dir.empty() && !all.empty() && fs::is_directory(all / "fashion-mnist", ignored)) dir = all / "fashion-mnist";
    return open_dataset("idx", dir, options);  // without a folder: Debian's
  }
  if (part == "omniglot")
    return open_dataset("folder", dir.empty() ? below(all, part, {"omniglot", "images_background"}) : dir, options);
  if (part == "cifar100" && dir.empty()) dir = below(all, part, {"cifar100", "cifar-100-binary", ""});
  if (part == "cifar10" && dir.empty()) dir = below(all, part, {"cifar10", "cifar-10-batches-bin", ""});
  const bool known = part == "cifar10" || part == "cifar100" || part == "idx" || part == "folder";
  check(known, Kind::usage, [&] {
    return cat("unknown part '", part, "' of a sequence; there are cifar10, cifar100, fashion-mnist, omniglot, idx, ",
               "folder and procedural, joined by +, each alone or followed by =DIR");
  });
  check(!dir.empty(), Kind::usage,
        [&] { return cat("the sequence's part '", part, "' needs its folder: write ", part, "=DIR"); });
  return open_dataset(part, dir, options);
}

}  // namespace

std::shared_ptr<const Dataset> join(std::vector<std::shared_ptr<const Dataset>> parts, std::vector<std::string> names) {
  return std::make_shared<JoinedDataset>(std::move(parts), std::move(names));
}

std::shared_ptr<const Dataset> open_sequence(const std::string& text, const fs::path& dir,
                                             const DatasetOptions& options) {
  std::vector<std::shared_ptr<const Dataset>> parts;
  std::vector<std::string> names;
  std::istringstream in(text);
  for (std::string one; std::getline(in, one, '+');) {
    const std::size_t equals = one.find('=');
    const std::string part = one.substr(0, equals);
    const fs::path folder = equals == std::string::npos ? fs::path() : fs::path(one.substr(equals + 1));
    parts.push_back(open_part(part, folder, dir, options));
    const auto same = std::count_if(names.begin(), names.end(),
                                    [&](const std::string& n) { return n.substr(0, n.find('#')) == part; });
    names.push_back(same ? cat(part, "#", same + 1) : part);  // two folders are two data sets
  }
  check(!parts.empty(), Kind::usage, [] {
    return std::string("a sequence of no data set; write for example sequence:cifar100+fashion-mnist+omniglot");
  });
  return join(std::move(parts), std::move(names));
}

}  // namespace eg
