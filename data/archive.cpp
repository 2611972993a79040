// data/archive.cpp - gzip (RFC 1952, through zlib) and ustar (POSIX.1-1988) readers that trust nothing they read.
#include <algorithm>
#include <limits>

#include "data/fetch.h"
#include "engine/error.h"
#include "engine/file.h"

#if defined(EVERGRAD_HAVE_ZLIB)
#include <zlib.h>
#endif

namespace eg {

namespace fs = std::filesystem;

#if defined(EVERGRAD_HAVE_ZLIB)

std::string gunzip(std::string_view bytes, std::uint64_t max_bytes, const std::string& what) {
  check(bytes.size() <= std::numeric_limits<uInt>::max(), Kind::format,
        [&] { return cat(what, ": ", bytes.size(), " bytes of gzip data are too many"); });
  z_stream z{};
  check(inflateInit2(&z, 15 + 16) == Z_OK, Kind::memory, [] { return std::string("zlib could not be started"); });
  struct End {
    z_stream* z;
    ~End() { inflateEnd(z); }
  } end{&z};
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  z.avail_in = uInt(bytes.size());
  std::string out;
  std::string chunk(std::size_t(1) << 18, '\0');
  int code = Z_OK;
  do {
    z.next_out = reinterpret_cast<Bytef*>(chunk.data());
    z.avail_out = uInt(chunk.size());
    code = inflate(&z, Z_NO_FLUSH);
    check(code == Z_OK || code == Z_STREAM_END, Kind::format, [&] {
      const bool cut = code == Z_BUF_ERROR;
      return cat(what, ": ", cut ? "the gzip data end too early: the file is truncated" : "damaged gzip data",
                 z.msg ? cat(" (", z.msg, ")") : std::string());
    });
    out.append(chunk, 0, chunk.size() - z.avail_out);
    check(out.size() <= max_bytes, Kind::format,
          [&] { return cat(what, ": the gzip data unpack to more than ", max_bytes, " bytes"); });
    if (code == Z_STREAM_END && z.avail_in > 0) {  // another member follows
      check(inflateReset(&z) == Z_OK, Kind::internal, [] { return std::string("zlib refused a reset"); });
      code = Z_OK;
    }
  } while (code != Z_STREAM_END);
  return out;
}

#else

std::string gunzip(std::string_view, std::uint64_t, const std::string& what) {
  fail(Kind::usage, cat(what,
                        " is gzip-compressed and this build lacks zlib; unpack it by hand (gunzip -k FILE), or "
                        "install zlib1g-dev and build again"));
}

#endif

namespace {

constexpr std::size_t kBlock = 512;

std::string field(std::string_view header, std::size_t at, std::size_t size) {
  const std::string_view raw = header.substr(at, size);
  return std::string(raw.substr(0, raw.find('\0')));
}

std::uint64_t octal(std::string_view header, std::size_t at, std::size_t size, const std::string& what) {
  std::uint64_t value = 0;
  bool any = false;
  for (const char ch : header.substr(at, size)) {
    if (ch == ' ' && !any) continue;
    if (ch == ' ' || ch == '\0') break;
    check(ch >= '0' && ch <= '7' && value < std::uint64_t(1) << 40, Kind::format,
          [&] { return cat(what, ": a tar header holds no octal number where one belongs"); });
    value = value * 8 + std::uint64_t(ch - '0');
    any = true;
  }
  return value;
}

void check_header(std::string_view header, const std::string& what, std::size_t at) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) sum += i >= 148 && i < 156 ? 32u : std::uint8_t(header[i]);
  check(sum == octal(header, 148, 8, what), Kind::format,
        [&] { return cat(what, ": the tar header at byte ", at, " is damaged (wrong checksum)"); });
}

/// The entry's path below dir; refuses whatever could lead elsewhere.
fs::path safe_path(const std::string& name, const fs::path& dir, const std::string& what) {
  const fs::path path(name);
  bool safe = !name.empty() && !path.is_absolute();
  for (const fs::path& step : path) safe = safe && step != "..";
  check(safe, Kind::format,
        [&] { return cat(what, ": the entry '", name, "' would be written outside ", dir.string()); });
  // A link that already lies in dir could lead elsewhere, too.
  fs::path at = dir;
  std::error_code ignored;
  for (const fs::path& step : path) {
    at /= step;
    check(!fs::is_symlink(at, ignored), Kind::format,
          [&] { return cat(what, ": the entry '", name, "' would be written through the link ", at.string()); });
  }
  return dir / path;
}

void make_folder(const fs::path& path, const std::string& name, const std::string& what) {
  std::error_code error;
  fs::create_directories(path, error);  // fails, too, where a file is in the folder's place
  check(!error, Kind::io, [&] {
    return cat(what, ": the entry '", name, "' needs the folder ", path.string(),
               ", which cannot be made: ", error.message());
  });
}

/// Does an extended header's content, lines "<length> <key>=<value>", replace what the entry's own header says?
bool changes_entry(std::string_view records) {
  for (const std::string_view key : {" path=", " linkpath=", " size="})
    if (records.find(key) != std::string_view::npos) return true;
  return false;
}

}  // namespace

std::vector<fs::path> unpack_tar(std::string_view tar, const fs::path& dir, const std::string& what) {
  std::vector<fs::path> written;
  for (std::size_t at = 0; at + kBlock <= tar.size();) {
    const std::string_view header = tar.substr(at, kBlock);
    if (std::all_of(header.begin(), header.end(), [](char ch) { return ch == '\0'; })) return written;
    check_header(header, what, at);
    const std::string prefix = header.substr(257, 5) == "ustar" ? field(header, 345, 155) : "";
    const std::string name = (prefix.empty() ? "" : prefix + "/") + field(header, 0, 100);
    const std::uint64_t size = octal(header, 124, 12, what);
    const char type = header[156];
    at += kBlock;
    check(size <= tar.size() - at, Kind::format, [&] {
      return cat(what, ": the entry '", name, "' claims ", size, " bytes but ", tar.size() - at,
                 " are left: the archive is truncated");
    });
    if (type == '5') {
      make_folder(safe_path(name, dir, what), name, what);
    } else if (type == '0' || type == '\0') {
      const fs::path path = safe_path(name, dir, what);
      make_folder(path.parent_path(), name, what);
      write_file(path, tar.substr(at, std::size_t(size)));
      written.push_back(path);
    } else {
      // Extended headers (POSIX.1-2001) mostly describe times and owners, which do not matter here.
      check(type == 'g' || type == 'x', Kind::format, [&] {
        return cat(what, ": the entry '", name, "' is a link or special file (type '", type, "'), which is refused");
      });
      check(!changes_entry(tar.substr(at, std::size_t(size))), Kind::format, [&] {
        return cat(what, ": an extended header renames or resizes an entry, which is not supported; unpack it by hand");
      });
    }
    at += std::size_t((size + kBlock - 1) / kBlock * kBlock);
  }
  fail(Kind::format, cat(what, ": the tar archive has no end mark: it is truncated"));
}

}  // namespace eg
