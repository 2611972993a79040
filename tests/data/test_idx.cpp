// tests/data/test_idx.cpp - MNIST's IDX format, plain and gzip, whole and damaged.
#include "data/fetch.h"
#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;

namespace {

bool can_gunzip() {
  try {
    gunzip("no gzip data", 100, "probe");
  } catch (const Error& e) {
    if (e.kind != Kind::usage) return true;
  }
  MESSAGE("SKIPPED: this build lacks zlib");
  return false;
}

}  // namespace

TEST_CASE("idx: images and labels come out as they stand in the files") {
  const TemporaryFolder f;
  write_idx(f);
  const auto d = open_dataset("idx", f.path());
  CHECK(d->classes() == 5);
  CHECK(d->size(Split::train) == 20);
  CHECK(d->size(Split::test) == 10);
  CHECK(d->label(Split::train, 7) == 2);
  CHECK(d->native() == ImageFormat{1, 4});
  const auto image = pixels(*d, Split::train, 2, {1, 4});
  for (std::size_t k = 0; k < 16; ++k) CHECK(image[k] == std::uint8_t((32 + k) * 3));
  const auto rgb = pixels(*d, Split::train, 2, {3, 4});
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t k = 0; k < 16; ++k) CHECK(rgb[c * 16 + k] == image[k]);
}

TEST_CASE("idx: gzip files are read like plain ones, and names with a dot as well") {
  if (!can_gunzip()) return;
  const TemporaryFolder f, g;
  write_idx(f);
  for (const char* name :
       {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}) {
    std::string dotted = name;
    dotted[dotted.find("-idx")] = '.';
    write_file(g / (dotted + ".gz"), gzip_stored(read_file(f / name)));
  }
  const auto a = open_idx(f.path()), b = open_idx(g.path());
  for (int i = 0; i < 20; ++i) CHECK(pixels(*a, Split::train, i, {1, 4}) == pixels(*b, Split::train, i, {1, 4}));
}

TEST_CASE("gunzip: several members are joined; truncated, damaged and oversized data are refused") {
  if (!can_gunzip()) return;
  const std::string text(100'000, 'x'), packed = gzip_stored(text);
  CHECK(gunzip(packed, 1 << 20, "a") == text);
  CHECK(gunzip(packed + gzip_stored("yz"), 1 << 20, "a") == text + "yz");
  CHECK(contains(error_text(Kind::format, [&] { gunzip(packed.substr(0, 500), 1 << 20, "a.gz"); }),
                 "a.gz: the gzip data end too early"));
  std::string bad = packed;
  bad[bad.size() - 6] = char(bad[bad.size() - 6] ^ 1);
  error_text(Kind::format, [&] { gunzip(bad, 1 << 20, "a.gz"); });
  CHECK(contains(error_text(Kind::format, [&] { gunzip(packed, 99'999, "a.gz"); }), "more than 99999"));
}

TEST_CASE("idx: damage is named with file and remedy") {
  struct Damage {
    const char* file;
    std::string bytes, words;
  };
  const std::string images = idx_bytes({20, 4, 4}, 3, 256), labels = idx_bytes({20}, 1, 5);
  std::string magic = images, one_more = labels;
  magic[2] = 9;
  one_more += 'x';
  std::string huge = images.substr(0, 4) + big_endian(0xffffffffu) + big_endian(0xffffffffu) + big_endian(0xffffffffu);
  const Damage damages[] = {{"train-images-idx3-ubyte", magic, "wrong magic number 2307"},
                            {"train-images-idx3-ubyte", images.substr(0, 100), "truncated"},
                            {"train-images-idx3-ubyte", images.substr(0, 9), "too few for an IDX header"},
                            {"train-images-idx3-ubyte", huge, "but 0 bytes follow"},
                            {"train-labels-idx1-ubyte", one_more, "but 21 bytes follow"},
                            {"train-labels-idx1-ubyte", idx_bytes({19}, 1, 5), "do not belong together"},
                            {"t10k-images-idx3-ubyte", idx_bytes({10, 5, 4}, 3, 256), "5 x 4"},
                            {"t10k-labels-idx1-ubyte", idx_bytes({10}, 1, 7), "training labels end at 4"}};
  for (const Damage& damage : damages) {
    const TemporaryFolder f;
    write_idx(f);
    write_file(f / damage.file, damage.bytes);
    const std::string text = error_text(Kind::format, [&] { open_idx(f.path()); });
    CHECK(contains(text, damage.words));
    CHECK(contains(text, damage.file));
  }
  const TemporaryFolder f;
  CHECK(contains(error_text(Kind::io, [&] { open_idx(f.path()); }), "dataset-fashion-mnist"));
  CHECK(contains(error_text(Kind::io, [&] { open_idx(f / "none"); }), "not a folder"));
}

TEST_CASE("idx: Debian's Fashion-MNIST") {
  if (!std::filesystem::exists("/usr/share/datasets/fashion-mnist")) {
    MESSAGE("SKIPPED: the package dataset-fashion-mnist is not installed");
    return;
  }
  if (!can_gunzip()) return;
  const auto d = open_dataset("idx", "");
  CHECK(d->classes() == 10);
  CHECK(d->size(Split::train) == 60000);
  CHECK(d->size(Split::test) == 10000);
  CHECK(d->class_name(9) == "ankle boot");
  for (int c = 0; c < 10; ++c) CHECK(d->indices_of(Split::train, c).size() == 6000);
}

TEST_CASE("idx: names come from class_names.txt, and a class without images is told") {
  const TemporaryFolder f;
  write_idx(f);
  write_file(f / "class_names.txt", "ant\r\nbee\ncat\ndog\neel\nfly\n");
  const auto d = open_idx(f.path());
  CHECK(d->classes() == 5);  // a sixth name makes no sixth class
  CHECK(d->class_name(0) == "ant");
  CHECK(d->class_name(4) == "eel");
  CHECK(d->warnings().empty());
  write_file(f / "class_names.txt", "ant\nbee\n");
  CHECK(contains(error_text(Kind::format, [&] { open_idx(f.path()); }), "2 names for 5 classes"));
  std::filesystem::remove(f / "class_names.txt");
  write_file(f / "train-labels-idx1-ubyte", idx_bytes({20}, 2, 8));  // 0, 2, 4, 6
  const auto gaps = open_idx(f.path());
  CHECK(gaps->classes() == 7);
  REQUIRE(gaps->warnings().size() == 1);
  CHECK(contains(gaps->warnings()[0], "3 of 7 classes have no training image, the first is '1'"));
}
