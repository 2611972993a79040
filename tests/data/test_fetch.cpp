// tests/data/test_fetch.cpp - downloads from a small HTTP server in this process, sums, and archives that mean harm.
#include "data/fetch.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
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

 private:
  void answer(int client) {
    std::string request;
    char c;
    while (request.find("\r\n\r\n") == std::string::npos && ::read(client, &c, 1) == 1) request += c;
    ++requests;
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
  std::string text_;
  int listener_;
  std::thread thread_;
};

bool ready() {
  if (!can_fetch()) MESSAGE("SKIPPED: this build lacks libcurl");
  return can_fetch();
}

std::string header(const std::string& name, std::size_t size, char type) {
  std::string h(512, '\0');
  const auto put = [&](std::size_t at, const std::string& s) { h.replace(at, s.size(), s); };
  char octal[16];
  put(0, name), put(100, "0000644"), put(257, "ustar"), put(148, "        ");
  std::snprintf(octal, sizeof octal, "%011zo", size);
  put(124, octal);
  h[156] = type;
  unsigned sum = 0;
  for (const char c : h) sum += std::uint8_t(c);
  std::snprintf(octal, sizeof octal, "%06o", sum);
  put(148, std::string(octal) + '\0');
  return h;
}
std::string entry(const std::string& name, const std::string& text, char type = '0') {
  std::string e = header(name, text.size(), type) + text;
  e.resize((e.size() + 511) / 512 * 512, '\0');
  return e;
}
const std::string kEnd(1024, '\0');

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
  CHECK(contains(error_text(Kind::io,
                            [&] {
                              fetch_file({"http://127.0.0.1:1/x", sha256_of("")}, f / "x");
                            }),
                 "cannot fetch"));
  CHECK(contains(error_text(Kind::usage, [&] { (void)remote_set("imagenet"); }), "cifar100"));
}

TEST_CASE("tar: regular files and folders are unpacked") {
  const TemporaryFolder f;
  const auto written = unpack_tar(
      entry("set/", "", '5') + entry("set/a.bin", "hello") + entry("set/deep/b.bin", std::string(1000, 'b')) + kEnd,
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
  std::string damaged = entry("a", "x");
  damaged[3] ^= 1;
  const Bad all[] = {{entry("../evil", "x") + kEnd, "outside"},
                     {entry("/tmp/evil", "x") + kEnd, "outside"},
                     {entry("a/../../evil", "x") + kEnd, "outside"},
                     {entry("link", "", '2') + kEnd, "link"},
                     {entry("hard", "", '1') + kEnd, "link"},
                     {entry("pipe", "", '6') + kEnd, "special"},
                     {damaged + kEnd, "checksum"},
                     {entry("a", "x"), "no end mark"},
                     {header("a", 5000, '0') + kEnd, "truncated"}};
  for (const Bad& bad : all)
    CHECK(contains(error_text(Kind::format, [&] { unpack_tar(bad.tar, dir, "x.tar"); }), bad.words));
  CHECK_FALSE(fs::exists(outer / "evil"));
  fs::create_directory_symlink(outer.path(), dir / "door");
  CHECK(contains(error_text(Kind::format, [&] { unpack_tar(entry("door/evil", "x") + kEnd, dir, "x.tar"); }),
                 "through the link"));
  CHECK_FALSE(fs::exists(outer / "evil"));
}
