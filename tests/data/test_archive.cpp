// tests/data/test_archive.cpp - tar archives, well meant and hostile.
#include "data/fetch.h"
#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

TEST_CASE("tar: regular files and folders are unpacked") {
  const TemporaryFolder f;
  const auto written = unpack_tar(tar_entry("set/", "", '5') + tar_entry("set/a.bin", "hello") +
                                      tar_entry("set/deep/b.bin", std::string(1000, 'b')) + kTarEnd,
                                  f.path(), "x.tar");
  CHECK(written.size() == 2);
  CHECK(read_file(f / "set/a.bin") == "hello");
  CHECK(read_file(f / "set/deep/b.bin").size() == 1000);
}

TEST_CASE("tar: entries that could write elsewhere, links, and damage are refused") {
  const TemporaryFolder outer;
  const fs::path dir = outer / "inside";
  fs::create_directories(dir);
  struct Bad {
    std::string tar, words;
  };
  std::string damaged = tar_entry("a", "x");
  damaged[3] ^= 1;
  const Bad all[] = {{tar_entry("../evil", "x") + kTarEnd, "outside"},
                     {tar_entry("/tmp/evil", "x") + kTarEnd, "outside"},
                     {tar_entry("a/../../evil", "x") + kTarEnd, "outside"},
                     {tar_entry("link", "", '2') + kTarEnd, "link"},
                     {tar_entry("hard", "", '1') + kTarEnd, "link"},
                     {tar_entry("pipe", "", '6') + kTarEnd, "special"},
                     {damaged + kTarEnd, "checksum"},
                     {tar_entry("a", "x"), "no end mark"},
                     {tar_header("a", 5000, '0') + kTarEnd, "truncated"}};
  for (const Bad& bad : all)
    CHECK(contains(error_text(Kind::format, [&] { unpack_tar(bad.tar, dir, "x.tar"); }), bad.words));
  CHECK_FALSE(fs::exists(outer / "evil"));
  fs::create_directory_symlink(outer.path(), dir / "door");
  CHECK(contains(error_text(Kind::format, [&] { unpack_tar(tar_entry("door/evil", "x") + kTarEnd, dir, "x.tar"); }),
                 "through the link"));
  CHECK_FALSE(fs::exists(outer / "evil"));
}

TEST_CASE("tar: extended headers may date a file, but not rename or resize it") {
  const TemporaryFolder f;
  for (const char type : {'x', 'g'}) {
    const std::string name(1, type);
    unpack_tar(tar_entry("pax", "20 mtime=1700000000\n", type) + tar_entry(name, "text") + kTarEnd, f.path(), "x.tar");
    CHECK(read_file(f / name) == "text");
    for (const char* record : {"16 path=../evil\n", "20 mtime=1700000000\n10 size=9\n", "15 linkpath=/x\n"}) {
      const std::string tar = tar_entry("pax", record, type) + tar_entry("short", "text") + kTarEnd;
      CHECK(contains(error_text(Kind::format, [&] { unpack_tar(tar, f.path(), "x.tar"); }), "extended header"));
      CHECK_FALSE(fs::exists(f / "short"));
    }
  }
}

TEST_CASE("tar: a file where a folder is needed is named") {
  const TemporaryFolder f;
  CHECK(contains(
      error_text(Kind::io,
                 [&] { unpack_tar(tar_entry("a", "x") + tar_entry("a/b", "y") + kTarEnd, f.path(), "x.tar"); }),
      "'a/b' needs the folder"));
  CHECK(contains(error_text(Kind::io, [&] { unpack_tar(tar_entry("a/", "", '5') + kTarEnd, f.path(), "x.tar"); }),
                 "'a/' needs the folder"));
}

TEST_CASE("tar: what GNU tar writes as ustar, gnu and pax is unpacked; its links and a cut file are refused") {
  const fs::path corpus = EVERGRAD_TEST_FILES "/fuzz/corpus/archive";
  for (const char* name : {"good_plain.tar", "good_gnu.tar", "good_pax.tar"}) {
    const TemporaryFolder f;
    CHECK(unpack_tar(read_file(corpus / name), f.path(), name).size() == 1);
    CHECK(read_file(f / "set/a.bin") == "hello\n");
  }
  for (const char* name : {"bad_link.tar", "bad_cut.tar"}) {
    const TemporaryFolder f;
    CHECK(contains(error_text(Kind::format, [&] { unpack_tar(read_file(corpus / name), f.path(), name); }), name));
  }
}
