// tests/data/test_cifar.cpp - CIFAR-10 and CIFAR-100 binary files, whole and damaged.
#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;

TEST_CASE("cifar100: images, fine labels and names come out as they stand in the files") {
  const TemporaryFolder f;
  write_file(f / "train.bin", cifar_record({3, 17}, 5) + cifar_record({19, 99}, 200) + cifar_record({0, 17}, 1));
  write_file(f / "test.bin", cifar_record({1, 2}, 9));
  write_file(f / "fine_label_names.txt", "apple\r\nfish\nbaby\n");
  const auto d = open_dataset("cifar100", f.path());
  CHECK(d->classes() == 100);
  CHECK(d->size(Split::train) == 3);
  CHECK(d->size(Split::test) == 1);
  CHECK(d->label(Split::train, 1) == 99);
  CHECK(d->indices_of(Split::train, 17) == std::vector<std::int64_t>{0, 2});
  CHECK(d->class_name(0) == "apple");
  CHECK(d->class_name(2) == "baby");
  CHECK(d->class_name(50) == "50");
  const auto image = pixels(*d, Split::train, 1, {3, 32});
  for (std::size_t k = 0; k < image.size(); ++k) REQUIRE(image[k] == std::uint8_t(200 + k));
  CHECK(d->native() == ImageFormat{3, 32});
}

TEST_CASE("cifar: other formats are resized and reduced to grey") {
  const TemporaryFolder f;
  write_file(f / "train.bin", cifar_record({0, 0}, 0));
  write_file(f / "test.bin", std::string(2, '\0') + std::string(1024, char(100)) + std::string(1024, char(200)) +
                                 std::string(1024, char(50)));
  const auto d = open_cifar100(f.path());
  for (const int size : {1, 7, 32, 64})
    for (const std::uint8_t v : pixels(*d, Split::test, 0, {1, size}))
      REQUIRE(std::abs(v - (0.299 * 100 + 0.587 * 200 + 0.114 * 50)) <= 1.0);
  const auto large = pixels(*d, Split::test, 0, {3, 48});
  CHECK(large[0] == 100);
  CHECK(large[48 * 48] == 200);
  CHECK(large[2 * 48 * 48] == 50);
  // Asked again, now from the cache.
  CHECK(pixels(*d, Split::test, 0, {3, 48}) == large);
}

TEST_CASE("cifar10: five training files make one split") {
  const TemporaryFolder f;
  std::filesystem::create_directories(f / "cifar-10-batches-bin");
  for (int i = 1; i <= 5; ++i)
    write_file(f / ("cifar-10-batches-bin/data_batch_" + std::to_string(i) + ".bin"), cifar_record({i}, 10 * i));
  write_file(f / "cifar-10-batches-bin/test_batch.bin", cifar_record({9}, 0));
  const auto d = open_cifar10(f.path());
  CHECK(d->size(Split::train) == 5);
  for (int i = 0; i < 5; ++i) {
    CHECK(d->label(Split::train, i) == i + 1);
    CHECK(pixels(*d, Split::train, i, {3, 32})[0] == 10 * (i + 1));
  }
}

TEST_CASE("cifar: damage is named with file and remedy") {
  const TemporaryFolder f;
  CHECK(contains(error_text(Kind::io, [&] { open_cifar100(f.path()); }), "evergrad data fetch cifar100"));
  CHECK(contains(error_text(Kind::usage, [&] { open_dataset("cifar100", ""); }),
                 "add --data DIR; evergrad data fetch cifar100 --dir DIR downloads"));
  write_file(f / "train.bin", cifar_record({0, 0}, 0));
  CHECK(contains(error_text(Kind::io, [&] { open_cifar100(f.path()); }), "test.bin"));
  write_file(f / "test.bin", cifar_record({0, 0}, 0).substr(0, 3000));
  const std::string truncated = error_text(Kind::format, [&] { open_cifar100(f.path()); });
  CHECK(contains(truncated, "test.bin"));
  CHECK(contains(truncated, "truncated"));
  write_file(f / "test.bin", "");
  CHECK(contains(error_text(Kind::format, [&] { open_cifar100(f.path()); }), "0 bytes"));
  write_file(f / "test.bin", cifar_record({0, 0}, 0) + cifar_record({0, 100}, 0));
  const std::string label = error_text(Kind::format, [&] { open_cifar100(f.path()); });
  CHECK(contains(label, "record 1 has label 100"));
  CHECK(contains(label, "0..99"));
  write_file(f / "test.bin", cifar_record({20, 5}, 0));
  CHECK(contains(error_text(Kind::format, [&] { open_cifar100(f.path()); }), "coarse 20"));
}

TEST_CASE("data sets: a bad index, class or format is refused") {
  const TemporaryFolder f;
  write_file(f / "train.bin", cifar_record({0, 0}, 0));
  write_file(f / "test.bin", cifar_record({0, 0}, 0));
  const auto d = open_cifar100(f.path());
  std::vector<std::uint8_t> out(4096 * 3);
  for (const std::int64_t i : {std::int64_t(-1), std::int64_t(1)}) {
    error_text(Kind::usage, [&] { d->image(Split::train, i, {3, 32}, out.data()); });
    error_text(Kind::usage, [&] { (void)d->label(Split::test, i); });
  }
  error_text(Kind::usage, [&] { (void)d->indices_of(Split::train, 100); });
  error_text(Kind::usage, [&] { (void)d->class_name(-1); });
  for (const ImageFormat bad : {ImageFormat{2, 32}, ImageFormat{3, 0}, ImageFormat{3, 5000}})
    error_text(Kind::usage, [&] { d->image(Split::train, 0, bad, out.data()); });
  CHECK(contains(error_text(Kind::usage, [&] { open_dataset("mnist", f.path()); }), "procedural"));
}

TEST_CASE("cifar100: the real set") {
  const char* const folder = std::getenv("EVERGRAD_DATA");
  if (!folder || !std::filesystem::exists(std::filesystem::path(folder) / "cifar-100-binary/train.bin")) {
    MESSAGE("SKIPPED: EVERGRAD_DATA names no folder with cifar-100-binary/");
    return;
  }
  const auto d = open_cifar100(folder);
  CHECK(d->size(Split::train) == 50000);
  CHECK(d->size(Split::test) == 10000);
  for (int c = 0; c < 100; ++c) {
    CHECK(d->indices_of(Split::train, c).size() == 500);
    CHECK(d->indices_of(Split::test, c).size() == 100);
  }
  CHECK(d->class_name(0) == "apple");
}
