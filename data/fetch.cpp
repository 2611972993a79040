// data/fetch.cpp - what can be downloaded, and a download that survives being interrupted.
#include "data/fetch.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <span>

#include "data/hash.h"
#include "engine/error.h"
#include "engine/file.h"

#if defined(EVERGRAD_HAVE_CURL)
#include <curl/curl.h>
#endif

namespace eg {

namespace fs = std::filesystem;

const std::vector<RemoteSet>& remote_sets() {
  static const std::string fashion = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/";
  static const std::vector<RemoteSet> sets{
      {"cifar100",
       "60,000 colour images of 100 classes, 32 x 32 (162 MB)",
       "cifar100",
       {{"https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"}},
       "cifar-100-binary"},
      {"cifar10",
       "60,000 colour images of 10 classes, 32 x 32 (162 MB)",
       "cifar10",
       {{"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"}},
       "cifar-10-batches-bin"},
      {"fashion-mnist",
       "70,000 grey images of 10 kinds of clothing, 28 x 28 (30 MB)",
       "idx",
       {{fashion + "train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"},
        {fashion + "train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"},
        {fashion + "t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"},
        {fashion + "t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"}},
       ""}};
  return sets;
}

const RemoteSet& remote_set(const std::string& name) {
  std::string names;
  for (const RemoteSet& set : remote_sets()) {
    if (set.name == name) return set;
    names += (names.empty() ? "" : ", ") + set.name;
  }
  fail(Kind::usage, cat("no data set '", name, "' can be fetched; there are ", names));
}

#if defined(EVERGRAD_HAVE_CURL)

bool can_fetch() { return true; }

namespace {

struct Transfer {
  int fd = -1;
  int write_error = 0;
  std::int64_t start = 0;
  const Progress* progress = nullptr;
  std::string name;
};

std::size_t on_data(char* data, std::size_t one, std::size_t bytes, void* self) {
  auto& t = *static_cast<Transfer*>(self);
  std::size_t done = 0;
  while (done < bytes * one) {
    const ssize_t n = ::write(t.fd, data + done, bytes * one - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      t.write_error = errno;
      return 0;  // makes curl stop
    }
    done += std::size_t(n);
  }
  return done;
}

int on_progress(void* self, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  auto& t = *static_cast<Transfer*>(self);
  if (*t.progress) (*t.progress)(t.name, t.start + now, total > 0 ? t.start + total : 0);
  return 0;
}

struct Outcome {
  CURLcode code;
  long status;
};

/// Appends to `part` what the server has beyond its present length.
Outcome transfer(const std::string& url, const fs::path& part, const Progress& progress) {
  const FileHandle file(::open(part.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  check(bool(file), Kind::io, [&] { return io_message("cannot write", part, errno); });
  Transfer t{file.get(), 0, std::int64_t(fs::file_size(part)), &progress, part.stem().string()};
  static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(initialised == CURLE_OK ? curl_easy_init() : nullptr,
                                                    curl_easy_cleanup);
  check(curl != nullptr, Kind::io, [] { return std::string("libcurl could not be started"); });
  const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 8L);
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, 30L);
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);  // nothing at all for a minute: give up, keep the part
  set(CURLOPT_LOW_SPEED_TIME, 60L);
  set(CURLOPT_RESUME_FROM_LARGE, curl_off_t(t.start));
  set(CURLOPT_WRITEFUNCTION, on_data);
  set(CURLOPT_WRITEDATA, &t);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, on_progress);
  set(CURLOPT_XFERINFODATA, &t);
  const CURLcode code = curl_easy_perform(curl.get());
  check(t.write_error == 0, Kind::io, [&] { return io_message("cannot write", part, t.write_error); });
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  check(::fsync(file.get()) == 0, Kind::io, [&] { return io_message("cannot write", part, errno); });
  return {code, status};
}

/// A verified part gets its final name; one with a wrong sum is removed.
void put_in_place(const RemoteFile& file, const fs::path& part, const fs::path& target) {
  std::error_code error;
  const std::string sum = file_sum(part, file.sum);
  if (sum != file.sum) {
    const auto bytes = fs::file_size(part);
    fs::remove(part, error);
    fail(Kind::format, cat(file.url, " arrived with the wrong sum ", sum, " (", bytes, " bytes) instead of ", file.sum,
                           "; it was removed: fetch it again, or tell the data set's owner"));
  }
  fs::rename(part, target, error);
  check(!error, Kind::io, [&] {
    return cat("cannot put the download ", part.string(), " in its place ", target.string(), ": ", error.message());
  });
  sync_folder(target.has_parent_path() ? target.parent_path() : fs::path("."));
}

}  // namespace

void fetch_file(const RemoteFile& file, const fs::path& target, const Progress& progress) {
  std::error_code ignored;
  if (fs::is_regular_file(target, ignored) && file_sum(target, file.sum) == file.sum) return;
  fs::create_directories(target.parent_path(), ignored);
  fs::path part = target;
  part += ".part";
  Outcome outcome = transfer(file.url, part, progress);
  // The server cannot continue a file (no ranges), or there is nothing after what we hold. A complete part passes the
  // check of its sum below; any other is fetched anew.
  const bool no_range = outcome.code == CURLE_RANGE_ERROR;
  const bool past_end = outcome.status == 416;
  if (no_range || (past_end && file_sum(part, file.sum) != file.sum)) {
    fs::remove(part, ignored);
    outcome = transfer(file.url, part, progress);
  } else if (past_end) {
    outcome.code = CURLE_OK;
  }
  if (outcome.code != CURLE_OK) {
    const std::uintmax_t size = fs::file_size(part, ignored), held = size == std::uintmax_t(-1) ? 0 : size;
    if (held == 0) fs::remove(part, ignored);
    fail(Kind::io,
         cat("cannot fetch ", file.url, ": ", curl_easy_strerror(outcome.code),
             outcome.status >= 400 ? cat(" (HTTP ", outcome.status, ")") : std::string(),
             held ? cat("; ", held, " bytes are kept in ", part.string(), ", the same command continues from there")
                  : std::string("; check the address and the network")));
  }
  put_in_place(file, part, target);
}

#else

bool can_fetch() { return false; }

void fetch_file(const RemoteFile& file, const fs::path& target, const Progress&) {
  fail(Kind::usage, cat("this build lacks libcurl and cannot fetch; download ", file.url, " to ", target.string(),
                        " by hand, or install libcurl4-openssl-dev and build again"));
}

#endif

void fetch_set(const RemoteSet& set, const fs::path& dir, const std::string& base_url, const Progress& progress) {
  std::error_code error;
  fs::create_directories(dir, error);
  check(!error, Kind::io, [&] { return cat("cannot create the folder ", dir.string(), ": ", error.message()); });
  for (RemoteFile file : set.files) {
    const fs::path target = dir / file.file_name();
    if (!base_url.empty()) file.url = base_url + (base_url.ends_with('/') ? "" : "/") + file.file_name();
    fetch_file(file, target, progress);
    if (target.extension() == ".gz" && target.stem().extension() == ".tar") {
      const std::string archive = gunzip(read_file(target), std::uint64_t(1) << 31, target.string());
      unpack_tar(archive, dir, target.string());
    }
  }
}

}  // namespace eg
