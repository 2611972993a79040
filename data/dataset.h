// data/dataset.h - labelled images behind one small interface: procedural, CIFAR, IDX and folders.
//
// An image is 8-bit, planar (channel, row, column) and square at the size the caller asks for; a data set resizes,
// expands grey to RGB or reduces RGB to grey as needed. Nothing here is a Tensor: this is host memory for the loader.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace eg {

/// Planar 8-bit pixels somewhere in memory: pixels[(c * height + y) * width + x].
struct Image {
  const std::uint8_t* pixels = nullptr;
  int channels = 0, height = 0, width = 0;
};

/// What a caller wants an image to be: `channels` 1 or 3, `size` x `size` pixels.
struct ImageFormat {
  int channels = 3, size = 32;
  std::int64_t bytes() const { return std::int64_t(channels) * size * size; }
  bool operator==(const ImageFormat&) const = default;
};
/// Throws Error{usage} unless channels is 1 or 3 and size is in [1, 4096].
void check_format(ImageFormat format);

/// Which images of a data set.
enum class Split : std::uint8_t { train, test };
const char* to_string(Split split);

/// A data set within a joined one: its classes are first_class .. first_class + classes - 1.
struct DatasetPart {
  std::string name;
  int first_class = 0, classes = 0;
};

/// Images with labels 0 .. classes()-1 in two splits. All const members may be called from several threads at once.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::string name() const = 0;
  virtual int classes() const = 0;
  virtual std::string class_name(int c) const = 0;
  virtual std::int64_t size(Split split) const = 0;
  virtual std::int32_t label(Split split, std::int64_t i) const = 0;
  /// Indices of all images of class c, ascending. Throws Error{usage} when c is not a class.
  virtual std::vector<std::int64_t> indices_of(Split split, int c) const = 0;
  /// Writes format.bytes() bytes to out. Throws Error{usage} for a bad index or format, Error{io|format} naming the
  /// file of a folder image that cannot be read or decoded.
  virtual void image(Split split, std::int64_t i, ImageFormat format, std::uint8_t* out) const = 0;
  /// The stored form: channels and the larger side; {3, 0} when images differ in size or any size is native.
  virtual ImageFormat native() const = 0;
  /// The data sets that this one was joined from (open_sequence), in order; itself alone otherwise.
  virtual std::vector<DatasetPart> parts() const { return {{name(), 0, classes()}}; }
  /// What opening found but tolerated, e.g. the names of skipped corrupt images; one sentence each.
  const std::vector<std::string>& warnings() const { return warnings_; }

 protected:
  void check_index(Split split, std::int64_t i) const;
  void check_class(int c) const;
  /// Adds a warning when some class has no training image.
  void warn_of_empty_classes(const std::vector<std::vector<std::int64_t>>& of_class);
  std::vector<std::string> warnings_;
};

/// Unlimited image classes from a seed: no file, no download. A class is a closed outline filled with a texture; every
/// image draws position, scale, rotation, phase, colours, polarity, distractors and noise anew (data/procedural.cpp).
struct ProceduralOptions {
  std::uint64_t seed = 1;
  int classes = 1'000'000;  // up to 2^31 - 1; classes cost nothing until they are drawn
  int train_per_class = 500, test_per_class = 100;
};

enum class OnCorrupt : std::uint8_t {
  fail,  // a corrupt image is an Error when it is reached; files are decoded lazily
  skip   // all files are decoded once at opening; corrupt ones are left out and named in warnings()
};

/// How a data set is opened.
struct DatasetOptions {
  ProceduralOptions procedural;
  OnCorrupt on_corrupt = OnCorrupt::fail;
  std::uint64_t split_seed = 1;                      // the split of folders without train/ and test/
  double test_share = 0.2;                           // of every class, in such a split
  std::int64_t cache_bytes = std::int64_t(4) << 30;  // decoded or resized images kept in memory, at most
};

/// Throws Error{usage} unless 1 <= classes, 1 <= train_per_class, 1 <= test_per_class.
std::unique_ptr<Dataset> make_procedural(const ProceduralOptions& options);
/// data_batch_1..5.bin and test_batch.bin (Krizhevsky 2009) in dir or dir/cifar-10-batches-bin.
std::unique_ptr<Dataset> open_cifar10(const std::filesystem::path& dir, const DatasetOptions& options = {});
/// train.bin and test.bin with coarse and fine labels (the fine ones are used) in dir or dir/cifar-100-binary.
std::unique_ptr<Dataset> open_cifar100(const std::filesystem::path& dir, const DatasetOptions& options = {});
/// train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-... (LeCun's MNIST format) in dir. Class names from
/// dir/class_names.txt when present.
std::unique_ptr<Dataset> open_idx(const std::filesystem::path& dir, const DatasetOptions& options = {});
/// JPEG, PNG, BMP. A class is a folder that directly holds images, named by its path below the root.
std::unique_ptr<Dataset> open_folder(const std::filesystem::path& dir, const DatasetOptions& options = {});

/// Data sets joined into one: the classes of each follow those of the one before, a class is named "part/class", and an
/// image comes in whatever format is asked for. Throws Error{usage} for no part.
std::shared_ptr<const Dataset> join(std::vector<std::shared_ptr<const Dataset>> parts, std::vector<std::string> names);
/// "cifar100+fashion-mnist+omniglot": each part is cifar10, cifar100, fashion-mnist, omniglot, idx, folder or procedural,
/// alone (then found below dir) or with a folder of its own: "cifar100=DIR". Throws Error{usage} for an unknown part or
/// one that is not found, naming what was looked for.
std::shared_ptr<const Dataset> open_sequence(const std::string& text, const std::filesystem::path& dir,
                                             const DatasetOptions& options = {});

/// kind: procedural | cifar10 | cifar100 | idx | folder | sequence:PART+PART... (open_sequence). dir is ignored by procedural; an empty dir with idx means
/// Debian's Fashion-MNIST. Throws Error{usage} for an unknown kind or a missing dir, Error{io|format} for bad files.
std::shared_ptr<const Dataset> open_dataset(const std::string& kind, const std::filesystem::path& dir,
                                            const DatasetOptions& options = {});
/// The kinds that open_dataset knows.
const std::vector<std::string>& dataset_kinds();

}  // namespace eg
