// tests/data/test_fetch.cpp - downloads from a small HTTP server in this process, and their sums.
#include "data/fetch.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <thread>

#include "data/hash.h"
#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

namespace {

/// Serves one text under any name on 127.0.0.1, one request per connection.
class Server {
 public:
  explicit Server(std::string text) : text_(std::move(text)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET, at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(listener_, reinterpret_cast<sockaddr*>(&at), sizeof at) == 0);
    socklen_t size = sizeof at;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size);
    port = ntohs(at.sin_port);
    REQUIRE(::listen(listener_, 8) == 0);
    thread_ = std::thread([this] {
      for (int client; (client = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(client)) answer(client);
    });
  }
  ~Server() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  std::string url(const std::string& name) const { return cat("http://127.0.0.1:", port, "/", name); }

  std::uint16_t port = 0;
  std::atomic<std::size_t> close_after{std::size_t(-1)};  // bytes of the body, then hang up
  std::atomic<bool> ranges{true}, missing{false};
  std::atomic<int> requests{0}, partial{0};
  /// "GET /name HTTP/1.1" of the latest request; to be read after the download.
  std::string line() const {
    const std::lock_guard lock(mutex_);
    return line_;
  }

 private:
  void answer(int client) {
    std::string request;
    char c;
    while (request.find("\r\n\r\n") == std::string::npos && ::read(client, &c, 1) == 1) request += c;
    ++requests;
    {
      const std::lock_guard lock(mutex_);
      line_ = request.substr(0, request.find('\r'));
    }
    std::size_t from = 0;
    if (const auto at = request.find("Range: bytes="); at != std::string::npos && ranges)
      from = std::stoull(request.substr(at + 13));
    std::string head;
    if (missing)
      head = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    else if (from >= text_.size() && from)
      head = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n";
    else if (from)
      head = cat("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes ", from, "-", text_.size() - 1, "/",
                 text_.size(), "\r\nContent-Length: ", text_.size() - from, "\r\n\r\n"),
      ++partial;
    else
      head = cat("HTTP/1.1 200 OK\r\nContent-Length: ", text_.size(), "\r\n\r\n");
    const bool body = head[9] == '2';
    const std::string all = head + (body ? text_.substr(from, close_after) : "");
    for (std::size_t done = 0; done < all.size();) {
      const ssize_t n = ::send(client, all.data() + done, all.size() - done, MSG_NOSIGNAL);
      if (n <= 0) break;
      done += std::size_t(n);
    }
  }
  std::string text_, line_;
  mutable std::mutex mutex_;
  int listener_;
  std::thread thread_;
};

bool ready() {
  if (!can_fetch()) MESSAGE("SKIPPED: this build lacks libcurl");
  return can_fetch();
}

}  // namespace

TEST_CASE("hash: published test vectors, whatever the pieces they arrive in") {
  CHECK(md5_of("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(md5_of("abc") == "900150983cd24fb0d6963f7d28e17f72");
  CHECK(md5_of("12345678901234567890123456789012345678901234567890123456789012345678901234567890") ==
        "57edf4a22be3c955ac49da2e2107b67a");
  CHECK(sha256_of("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256_of(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const std::string text(1000, 'q');
  for (const std::size_t step : {1u, 55u, 63u, 64u, 65u}) {
    Md5 m;
    Sha256 s;
    for (std::size_t at = 0; at < text.size(); at += step) {
      m.update(text.data() + at, std::min(step, text.size() - at));
      s.update(text.data() + at, std::min(step, text.size() - at));
    }
    CHECK(m.hex() == md5_of(text));
    CHECK(s.hex() == sha256_of(text));
  }
}

TEST_CASE("fetch: a file arrives, is verified, and is not fetched again") {
  if (!ready()) return;
  const std::string text(300'000, 'z');
  Server server(text);
  const TemporaryFolder f;
  for (const std::string& sum : {sha256_of(text), md5_of(text)}) {
    const RemoteFile file{server.url("data.bin"), sum};
    fetch_file(file, f / sum);
    CHECK(read_file(f / sum) == text);
    const int before = server.requests;
    fetch_file(file, f / sum);
    CHECK(server.requests == before);
    CHECK_FALSE(fs::exists((f / sum).string() + ".part"));
  }
}

TEST_CASE("fetch: an interrupted download keeps its part and goes on from there") {
  if (!ready()) return;
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += char(i * 31 + i / 251);
  Server server(text);
  const TemporaryFolder f;
  const RemoteFile file{server.url("data.bin"), sha256_of(text)};
  server.close_after = 70'000;
  const std::string why = error_text(Kind::io, [&] { fetch_file(file, f / "data.bin"); });
  CHECK(contains(why, "70000 bytes are kept"));
  CHECK_FALSE(fs::exists(f / "data.bin"));
  server.close_after = std::size_t(-1);
  fetch_file(file, f / "data.bin");
  CHECK(read_file(f / "data.bin") == text);
  CHECK(server.partial == 1);
}

TEST_CASE("fetch: a server without ranges is asked for the whole file again; a complete part is recognised") {
  if (!ready()) return;
  const std::string text(50'000, 'r');
  Server server(text);
  const TemporaryFolder f;
  const RemoteFile file{server.url("d"), sha256_of(text)};
  write_file(f / "d.part", text.substr(0, 1000));
  server.ranges = false;
  fetch_file(file, f / "d");
  CHECK(read_file(f / "d") == text);
  server.ranges = true;
  write_file(f / "e.part", text);
  fetch_file(file, f / "e");
  CHECK(read_file(f / "e") == text);
  write_file(f / "g.part", text + "too much");  // damaged and past the end: fetched anew
  fetch_file(file, f / "g");
  CHECK(read_file(f / "g") == text);
}

TEST_CASE("fetch: a wrong sum, a missing file and an absent server are named") {
  if (!ready()) return;
  Server server("content");
  const TemporaryFolder f;
  const std::string wrong = error_text(Kind::format, [&] {
    fetch_file({server.url("x"), sha256_of("other")}, f / "x");
  });
  CHECK(contains(wrong, sha256_of("content")));
  CHECK(contains(wrong, "/x"));
  CHECK_FALSE(fs::exists(f / "x"));
  CHECK_FALSE(fs::exists(f / "x.part"));
  server.missing = true;
  CHECK(contains(error_text(Kind::io, [&] { fetch_file({server.url("x"), sha256_of("content")}, f / "x"); }), "404"));
  CHECK_FALSE(fs::exists(f / "x.part"));  // nothing came, so nothing is kept
  write_file(f / "x.part", "cont");
  CHECK(contains(error_text(Kind::io,
                            [&] {
                              fetch_file({server.url("x"), sha256_of("content")}, f / "x");
                            }),
                 "4 bytes are kept"));
  server.missing = false;
  fetch_file({server.url("x"), sha256_of("content")}, f / "x");
  CHECK(read_file(f / "x") == "content");
  CHECK(contains(error_text(Kind::io,
                            [&] {
                              fetch_file({"http://127.0.0.1:1/x", sha256_of("")}, f / "x");
                            }),
                 "cannot fetch"));
  CHECK(contains(error_text(Kind::usage, [&] { (void)remote_set("imagenet"); }), "cifar100"));
}

TEST_CASE("fetch: a set is fetched from a mirror and unpacked; the second time nothing is transferred") {
  if (!ready()) return;
  const std::string archive = gzip_stored(tar_entry("set/", "", '5') + tar_entry("set/a.bin", "hello") + kTarEnd);
  Server server(archive);
  const TemporaryFolder f;
  RemoteSet set;
  set.name = "small", set.files = {{"https://unreachable.invalid/some/where/small.tar.gz", sha256_of(archive)}};
  std::int64_t last = 0;
  const auto progress = [&](const std::string& file, std::int64_t done, std::int64_t) {
    CHECK(file == "small.tar.gz");
    CHECK(done >= last);
    last = done;
  };
  for (const char* base : {"", "/"}) {  // with and without a slash at the end of the address
    fs::remove_all(f / "deep");
    last = 0;
    fetch_set(set, f / "deep/down", server.url("mirror") + base, progress);
    CHECK(last == std::int64_t(archive.size()));
    CHECK(contains(server.line(), "GET /mirror/small.tar.gz "));
    CHECK(read_file(f / "deep/down/set/a.bin") == "hello");
  }
  fs::remove(f / "deep/down/set/a.bin");
  const int before = server.requests;
  fetch_set(set, f / "deep/down", server.url("mirror"));
  CHECK(server.requests == before);
  CHECK(read_file(f / "deep/down/set/a.bin") == "hello");
  set.files[0].sum = sha256_of("another");
  error_text(Kind::format, [&] { fetch_set(set, f / "deep/down", server.url("mirror")); });
}

TEST_CASE("fetch: a full disk is named, and what arrived is kept") {
  if (!ready()) return;
  const MountedFolder small("64k");
  if (!small) return;
  const std::string text(300'000, 'f');
  Server server(text);
  const RemoteFile file{server.url("big"), sha256_of(text)};
  const std::string why = error_text(Kind::io, [&] { fetch_file(file, small.path() / "big"); });
  CHECK(contains(why, "big.part"));
  CHECK(contains(why, "No space left"));
  CHECK_FALSE(fs::exists(small.path() / "big"));
  CHECK(fs::file_size(small.path() / "big.part") > 0);
}

TEST_CASE("fetch: what can be fetched has the published addresses and sums") {
  CHECK(remote_set("cifar100").files[0].sum == "03b5dce01913d631647c71ecec9e9cb8");
  CHECK(remote_set("cifar10").files[0].sum == "c32a1d4ab5d03f1284b67883e8d87530");
  CHECK(remote_set("fashion-mnist").files.size() == 4);
  for (const RemoteSet& set : remote_sets()) {
    const auto& kinds = dataset_kinds();
    CHECK(std::find(kinds.begin(), kinds.end(), set.kind) != kinds.end());
    for (const RemoteFile& file : set.files) {
      CHECK(file.sum.size() == 32);
      CHECK(file.file_name().ends_with(".gz"));
    }
  }
}
