// tests/data/test_folder.cpp - folders of images: layouts, formats, damage.
#include <algorithm>
#include <set>

#include "data/preview.h"
#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

namespace {

void put(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  write_file(path, bytes);
}

}  // namespace

TEST_CASE("folder: train with test, or with val, are used as they are") {
  for (const char* held : {"test", "val"}) {
    const TemporaryFolder f;
    put(f / "train/cat/1.bmp", bmp(4, 4, 10, 20, 30));
    put(f / "train/cat/2.BMP", bmp(4, 4, 11, 20, 30));
    put(f / "train/dog/1.bmp", bmp(4, 4, 12, 20, 30));
    put(f / "train/dog/notes.txt", "no image");
    put(f / (std::string(held) + "/dog/9.bmp"), bmp(4, 4, 13, 20, 30));
    const auto d = open_dataset("folder", f.path());
    CHECK(d->classes() == 2);
    CHECK(d->class_name(1) == "dog");
    CHECK(d->size(Split::train) == 3);
    CHECK(d->size(Split::test) == 1);
    CHECK(d->label(Split::test, 0) == 1);
    CHECK(pixels(*d, Split::test, 0, {3, 4})[5] == 13);
  }
}

TEST_CASE("folder: without a test folder a fifth of every class is held out, by seed; nested folders name classes") {
  const TemporaryFolder f;
  for (int i = 0; i < 10; ++i) {
    put(f / ("greek/alpha/" + std::to_string(i) + ".bmp"), bmp(2, 2, i, i, i));
    put(f / ("latin/a/" + std::to_string(i) + ".bmp"), bmp(2, 2, i, i, i));
  }
  put(f / "single/x/only.bmp", bmp(2, 2, 1, 1, 1));
  DatasetOptions options;
  const auto held = [&](std::uint64_t seed) {
    options.split_seed = seed;
    const auto d = open_folder(f.path(), options);
    CHECK(d->classes() == 3);
    CHECK(d->class_name(0) == "greek/alpha");
    CHECK(d->size(Split::train) == 17);  // 8 + 8 + the single image, which cannot be split
    CHECK(d->size(Split::test) == 4);
    std::vector<int> values;
    for (int i = 0; i < 4; ++i) values.push_back(pixels(*d, Split::test, i, {1, 2})[3]);
    return values;
  };
  CHECK(held(1) == held(1));
  std::set<std::vector<int>> different;
  for (std::uint64_t seed = 1; seed < 9; ++seed) different.insert(held(seed));
  CHECK(different.size() > 3);
}

TEST_CASE("folder: any size and kind of PNG or BMP is brought to the asked format") {
  const TemporaryFolder f;
  Canvas sheet(37, 11, 77);  // an RGB PNG of one grey
  fs::create_directories(f / "train/a"), fs::create_directories(f / "test/a");
  sheet.write_png(f / "train/a/x.png");
  put(f / "test/a/y.bmp", bmp(5, 9, 200, 100, 40));
  const auto d = open_folder(f.path());
  for (const std::uint8_t v : pixels(*d, Split::train, 0, {1, 16})) CHECK(v == 77);
  const auto small = pixels(*d, Split::test, 0, {3, 9});
  CHECK(small[80] == 200);
  CHECK(small[81 + 80] == 100);
  CHECK(small[162 + 80] == 40);
}

TEST_CASE("folder: a corrupt image is fatal by name, or skipped by name") {
  const TemporaryFolder f;
  for (int i = 0; i < 4; ++i) {
    put(f / ("train/a/" + std::to_string(i) + ".bmp"), bmp(2, 2, 9, 9, 9));
    put(f / ("test/a/" + std::to_string(i) + ".bmp"), bmp(2, 2, 9, 9, 9));
  }
  put(f / "train/a/zz.png", "\x89PNG but not really");
  DatasetOptions options;
  const auto strict = open_folder(f.path(), options);
  CHECK(strict->size(Split::train) == 5);
  CHECK(contains(error_text(Kind::format, [&] { pixels(*strict, Split::train, 4, {3, 2}); }), "train/a/zz.png"));
  options.on_corrupt = OnCorrupt::skip;
  const auto lenient = open_folder(f.path(), options);
  CHECK(lenient->size(Split::train) == 4);
  REQUIRE(lenient->warnings().size() == 1);
  CHECK(contains(lenient->warnings()[0], "zz.png"));
  fs::remove(f / "train/a/1.bmp");  // vanished after opening
  CHECK(contains(error_text(Kind::io, [&] { pixels(*strict, Split::train, 1, {3, 2}); }), "1.bmp"));
}

TEST_CASE("folder: empty and missing folders, and classes that only the test part has") {
  const TemporaryFolder f;
  CHECK(contains(error_text(Kind::format, [&] { open_folder(f.path()); }), "hold no JPEG, PNG or BMP image"));
  CHECK(contains(error_text(Kind::io, [&] { open_folder(f / "none"); }), "is not a folder"));
  put(f / "train/a/1.bmp", bmp(2, 2, 1, 1, 1));
  fs::create_directories(f / "test");
  CHECK(contains(error_text(Kind::format, [&] { open_folder(f.path()); }), "test"));
  put(f / "test/b/1.bmp", bmp(2, 2, 1, 1, 1));
  CHECK(contains(error_text(Kind::format, [&] { open_folder(f.path()); }), "the class 'b'"));
}

TEST_CASE("folder: Omniglot") {
  const char* const folder = std::getenv("EVERGRAD_DATA");
  if (!folder || !fs::exists(fs::path(folder) / "images_background")) {
    MESSAGE("SKIPPED: EVERGRAD_DATA names no folder with images_background/");
    return;
  }
  const auto d = open_folder(fs::path(folder) / "images_background");
  CHECK(d->classes() == 964);
  CHECK(d->size(Split::train) + d->size(Split::test) == 964 * 20);
  CHECK(d->size(Split::test) == 964 * 4);
  const auto image = pixels(*d, Split::train, 0, {1, 28});
  CHECK(*std::max_element(image.begin(), image.end()) > 200);
  CHECK(*std::min_element(image.begin(), image.end()) < 100);
}

TEST_CASE("folder: a truncated image, whatever its kind, does not train as half an image") {
  const TemporaryFolder f;
  const std::string whole = bmp(20, 20, 200, 100, 50);
  for (const char* part : {"train", "test"}) {
    put(f / part / "a/whole.bmp", whole);
    put(f / part / "b/whole.bmp", whole);
    put(f / part / "b/cut.bmp", whole.substr(0, whole.size() / 2));
    put(f / part / "b/empty.jpg", "");
  }
  DatasetOptions options;
  options.on_corrupt = OnCorrupt::skip;
  const auto d = open_folder(f.path(), options);
  CHECK(d->size(Split::train) == 2);
  CHECK(d->size(Split::test) == 2);
  REQUIRE(d->warnings().size() == 4);
  CHECK(contains(d->warnings()[0], "train/b/cut.bmp"));
  CHECK(contains(d->warnings()[0], "truncated"));
  CHECK(contains(d->warnings()[1], "train/b/empty.jpg"));
  CHECK(contains(d->warnings()[2], "test/b/cut.bmp"));
}

TEST_CASE("folder: a class that loses all its images is told, and a folder that loses everything is refused") {
  const TemporaryFolder f;
  for (const char* part : {"train", "test"}) {
    put(f / part / "a/1.png", "broken");
    put(f / part / "b/1.bmp", bmp(2, 2, 1, 1, 1));
  }
  DatasetOptions options;
  options.on_corrupt = OnCorrupt::skip;
  const auto d = open_folder(f.path(), options);
  CHECK(d->classes() == 2);
  CHECK(contains(d->warnings().back(), "1 of 2 classes have no training image, the first is 'a'"));
  put(f / "train/b/1.bmp", "broken as well");
  CHECK(contains(error_text(Kind::format, [&] { open_folder(f.path(), options); }), "no readable image is left"));
}

TEST_CASE("folder: test goes before val, and images beside class folders are a class of their own") {
  const TemporaryFolder f;
  put(f / "train/a/1.bmp", bmp(2, 2, 1, 1, 1));
  put(f / "test/a/1.bmp", bmp(2, 2, 2, 2, 2));
  put(f / "val/a/1.bmp", bmp(2, 2, 3, 3, 3));
  CHECK(pixels(*open_folder(f.path()), Split::test, 0, {1, 2})[3] == 2);
  const TemporaryFolder g;
  for (const char* name : {"mixed/1.bmp", "mixed/2.bmp", "mixed/deep/1.bmp", "mixed/deep/2.bmp"})
    put(g / name, bmp(2, 2, 1, 1, 1));
  const auto d = open_folder(g / "mixed/");
  CHECK(d->class_name(0) == "deep");
  CHECK(d->class_name(1) == "mixed");
  CHECK(d->size(Split::test) == 2);
}

TEST_CASE("folder: images come out the same from the cache, and when nothing may be cached") {
  const TemporaryFolder f;
  for (int i = 0; i < 6; ++i)
    for (const char* part : {"train", "test"})
      put(f / part / ("a/" + std::to_string(i) + ".bmp"), bmp(5 + i, 9, 40 * i, 100, 7));
  DatasetOptions options;
  const auto large = open_folder(f.path(), options);
  options.cache_bytes = 0;
  const auto none = open_folder(f.path(), options);
  for (int pass = 0; pass < 2; ++pass)
    for (const ImageFormat format : {ImageFormat{3, 8}, ImageFormat{1, 8}, ImageFormat{3, 31}})
      for (int i = 0; i < 6; ++i)
        CHECK(pixels(*large, Split::train, i, format) == pixels(*none, Split::train, i, format));
  // The cache keeps the first format; another one in between must not be taken for it.
  const auto fresh = open_folder(f.path());
  pixels(*fresh, Split::train, 0, {3, 8});
  pixels(*fresh, Split::train, 1, {1, 8});
  CHECK(pixels(*fresh, Split::train, 1, {3, 8}) == pixels(*none, Split::train, 1, {3, 8}));
  fs::remove_all(f / "train");
  CHECK_NOTHROW(pixels(*large, Split::train, 3, {3, 8}));  // held in memory
  error_text(Kind::io, [&] { pixels(*none, Split::train, 3, {3, 8}); });
}
