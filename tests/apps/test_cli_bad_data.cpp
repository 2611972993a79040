// tests/apps/test_cli_bad_data.cpp - data that is missing, cut off, of another kind or damaged: every command names the
// file, what is wrong with it and what would be right, and no run folder is made.
#include <fstream>

#include "tests/apps/command.h"

using namespace eg;
namespace fs = std::filesystem;

namespace {
std::string big_endian(std::uint32_t v) { return {char(v >> 24), char(v >> 16), char(v >> 8), char(v)}; }
/// `count` images of 8 x 8 grey pixels in IDX form, labels 0, 1, 2, 0, ...
void write_idx(const fs::path& dir, const std::string& part, int count) {
  std::string images = big_endian(0x803) + big_endian(std::uint32_t(count)) + big_endian(8) + big_endian(8);
  std::string labels = big_endian(0x801) + big_endian(std::uint32_t(count));
  for (int i = 0; i < count; ++i) images += std::string(64, char(i * 5)), labels += char(i % 3);
  write_file(dir / (part + "-images-idx3-ubyte"), images);
  write_file(dir / (part + "-labels-idx1-ubyte"), labels);
}
/// CIFAR-10's six files with `count` images each.
void write_cifar10(const fs::path& dir, int count) {
  std::string rows;
  for (int i = 0; i < count; ++i) rows += char(i % 10) + std::string(3072, char(i));
  for (int b = 1; b <= 5; ++b) write_file(dir / cat("data_batch_", b, ".bin"), rows);
  write_file(dir / "test_batch.bin", rows);
}
/// A folder of classes with 24-bit BMP images of 4 x 4 pixels.
void write_folder(const fs::path& dir, int classes, int count) {
  for (int c = 0; c < classes; ++c) {
    fs::create_directories(dir / cat("class", c));
    for (int i = 0; i < count; ++i) {
      std::string bmp = "BM" + std::string(52, '\0') + std::string(48, char(40 * c + i));
      bmp[2] = 102, bmp[10] = 54, bmp[14] = 40, bmp[18] = 4, bmp[22] = 4, bmp[26] = 1, bmp[28] = 24;
      write_file(dir / cat("class", c) / cat("image", i, ".bmp"), bmp);
    }
  }
}
void change(const fs::path& file, std::size_t at, char value) {
  std::string bytes = read_file(file);
  bytes[at] = value;
  write_file(file, bytes);
}
}  // namespace

TEST_CASE("data: files in every format train, are previewed and named") {
  const TemporaryFolder folder;
  for (const char* d : {"idx", "cifar10", "folder"}) fs::create_directory(folder / d);
  write_idx(folder / "idx", "train", 60), write_idx(folder / "idx", "t10k", 30);
  write_cifar10(folder / "cifar10", 20);
  write_folder(folder / "folder", 3, 10);
  for (const std::string kind : {"idx", "cifar10", "folder"}) {
    INFO(kind);
    const Args data = {"--stream", kind, "--data", (folder / kind).string()};
    const Args three = {"--protocol", "input-permutation", "--classes-per-task", "3"};
    const Ended run = evergrad(tiny_continual(folder / ("run-" + kind)) + data + three);
    INFO(run.all());
    CHECK(run.code == 0);
    const fs::path sheet = folder / (kind + ".png");
    CHECK(evergrad(Args{"data", "preview", "--out", sheet.string(), "--classes-per-task", "3"} + data).code == 0);
    CHECK(read_file(sheet).substr(1, 3) == "PNG");
    const Ended many = evergrad(tiny_continual(folder / "none") + data + Args{"--classes-per-task", "11"});
    check_refused(many, 2, {"11 classes", kind == "cifar10" ? "10" : "3"});
    check_refused(evergrad(tiny_train(folder / "none") + data + Args{"--classes", "11"}), 2, {"11 classes"});
    CHECK_FALSE(fs::exists(folder / "none"));
  }
}

TEST_CASE("data: missing, truncated, mislabelled and foreign files are refused by name before a folder is made") {
  const TemporaryFolder folder;
  const auto refused = [&](const std::string& kind, const std::vector<std::string>& parts) {
    const Args data = {"--stream", kind, "--data", (folder / kind).string()};
    for (const Args& command : {tiny_continual(folder / "run"), tiny_train(folder / "run"), Args{"data", "preview"}}) {
      INFO(command[0]);
      const Ended e =
          evergrad(command + data + (command[0] == "data" ? Args{"--out", (folder / "run").string()} : Args{}));
      check_refused(e, e.code, parts);
      CHECK((e.code == 1 || e.code == 2));
      CHECK_FALSE(fs::exists(folder / "run"));
    }
  };
  for (const char* kind : {"idx", "cifar10", "cifar100", "folder"}) refused(kind, {(folder / kind).string()});
  for (const char* d : {"idx", "cifar10", "cifar100", "folder"}) fs::create_directory(folder / d);
  for (const char* kind : {"idx", "cifar10", "cifar100", "folder"}) refused(kind, {(folder / kind).string()});

  write_idx(folder / "idx", "train", 60), write_idx(folder / "idx", "t10k", 30);
  const fs::path images = folder / "idx" / "train-images-idx3-ubyte",
                 labels = folder / "idx" / "train-labels-idx1-ubyte";
  const std::string good_images = read_file(images), good_labels = read_file(labels);
  fs::resize_file(images, good_images.size() - 1), refused("idx", {images.string()});
  fs::resize_file(images, 3), refused("idx", {images.string()});
  write_file(images, good_images), change(images, 2, 9), refused("idx", {images.string(), "magic"});
  write_file(images, good_images), change(labels, 7, 59), refused("idx", {labels.string()});
  write_file(labels, good_labels), fs::remove(labels), refused("idx", {labels.filename().string()});

  write_cifar10(folder / "cifar10", 20);
  change(folder / "cifar10" / "data_batch_3.bin", 3073 * 7, 10);
  refused("cifar10", {"data_batch_3.bin", "10"});  // a label that cannot be
  write_cifar10(folder / "cifar10", 20);
  fs::resize_file(folder / "cifar10" / "test_batch.bin", 3073 * 20 - 5), refused("cifar10", {"test_batch.bin"});
  write_cifar10(folder / "cifar10", 20);
  fs::remove(folder / "cifar10" / "data_batch_5.bin"), refused("cifar10", {"data_batch_5.bin"});
}

TEST_CASE("data: a corrupt image stops the run by name, or is left out by name as --corrupt says") {
  const TemporaryFolder folder;
  write_folder(folder / "images", 2, 10);
  write_file(folder / "images" / "class1" / "image4.bmp", "BM but then nothing that is an image");
  const Args data = {"--stream", "folder", "--data", (folder / "images").string(), "--tasks", "1"};
  check_refused(evergrad(tiny_continual(folder / "a") + data), 1, {"image4.bmp"});
  const Ended skipped = evergrad(tiny_continual(folder / "b") + data + Args{"--corrupt", "skip"});
  INFO(skipped.all());
  CHECK(skipped.code == 0);
  CHECK(contains(skipped.err, "image4.bmp"));
  check_refused(evergrad(tiny_train(folder / "c") + data + Args{"--classes", "2"}), 2, {"--tasks"});
  CHECK_FALSE(fs::exists(folder / "c"));
}
