// engine/collectives/tcp_messages.cpp - see tcp_messages.h.
#include "engine/collectives/tcp_messages.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "engine/error.h"

namespace eg {
namespace {

void put_length(std::string* out, std::size_t n) {
  for (int shift = 0; shift < 32; shift += 8) out->push_back(char((n >> shift) & 0xff));
}

bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0; }

/// True when `events` are there before the deadline.
bool ready(int fd, short events, const Deadline& deadline) {
  for (;;) {
    pollfd p{fd, events, 0};
    const int n = ::poll(&p, 1, int(std::min(deadline.left() * 1000.0 + 1.0, 1e6)));
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return false;
    if (n == 0 && deadline.over()) return errno = ETIMEDOUT, false;
  }
}

void no_delay(int fd) {  // requests are small, and each waits for its answer
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

struct Addresses {
  addrinfo* first = nullptr;
  ~Addresses() {
    if (first != nullptr) ::freeaddrinfo(first);
  }
};

/// One attempt at all addresses of a host; `why` says what was wrong with the last.
FileHandle try_connect(const std::string& host, int port, const Deadline& deadline, std::string* why) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC, hints.ai_socktype = SOCK_STREAM;
  Addresses found;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found.first);
  if (code != 0) *why = cat("its name is not known: ", ::gai_strerror(code));
  for (const addrinfo* a = found.first; a != nullptr; a = a->ai_next) {
    FileHandle fd(::socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) continue;
    int error = ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS) {
      const Deadline attempt = within(std::min(5.0, deadline.left()));  // a packet filter may swallow everything
      socklen_t n = sizeof error;
      if (!ready(fd.get(), POLLOUT, attempt))
        error = ETIMEDOUT;
      else
        ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &n);
    }
    if (error == 0) return no_delay(fd.get()), std::move(fd);
    *why = std::strerror(error);
  }
  return {};
}

}  // namespace

std::uint32_t length_at(std::string_view bytes) {
  std::uint32_t n = 0;
  for (int i = 0; i < 4; ++i) n |= std::uint32_t(static_cast<unsigned char>(bytes[std::size_t(i)])) << (8 * i);
  return n;
}

std::string pack(const Fields& fields) {
  std::size_t total = 0;
  for (const std::string& f : fields) total += 4 + f.size();
  std::string out;
  out.reserve(4 + total);
  put_length(&out, total);
  for (const std::string& f : fields) put_length(&out, f.size()), out += f;
  return out;
}

std::optional<Fields> unpack(std::string_view m) {
  Fields fields;
  while (!m.empty()) {
    if (m.size() < 4 || length_at(m) > m.size() - 4) return std::nullopt;
    fields.emplace_back(m.substr(4, length_at(m)));
    m.remove_prefix(4 + fields.back().size());
  }
  return fields;
}

FileHandle listen_on(const std::string& host, int port) {
  // Both families on one socket where the machine has IPv6, else IPv4 alone.
  const bool local = is_loopback(host);
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6, six.sin6_addr = in6addr_any, six.sin6_port = htons(std::uint16_t(port));
  sockaddr_in four{};
  four.sin_family = AF_INET, four.sin_addr.s_addr = htonl(local ? INADDR_LOOPBACK : INADDR_ANY),
  four.sin_port = htons(std::uint16_t(port));
  if (host == "::1") six.sin6_addr = in6addr_loopback;
  const bool use_six = !local || host == "::1";
  int error = 0;
  for (const bool v6 : {true, false}) {
    if (v6 && !use_six) continue;
    FileHandle fd(::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1, off = 0;
    if (!fd) {
      error = errno;
      continue;
    }
    // Lets a new start listen while connections of the one before still fade; two listeners stay impossible.
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (v6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    const auto* address = v6 ? reinterpret_cast<const sockaddr*>(&six) : reinterpret_cast<const sockaddr*>(&four);
    if (::bind(fd.get(), address, v6 ? sizeof six : sizeof four) == 0 && ::listen(fd.get(), 1024) == 0) return fd;
    error = errno;
    if (error == EADDRINUSE) break;
  }
  eg::fail(Kind::io,
           cat("rank 0 cannot listen on port ", port, " of ", host_name(), ": ", std::strerror(error),
               error == EADDRINUSE ? " (does an earlier start still run? stop it, or set another MASTER_PORT)" : ""));
}

FileHandle connect_to(const std::string& host, int port, int rank, const Deadline& deadline) {
  std::string why = "no attempt was made";
  for (double pause = 0.05;; pause = std::min(1.0, pause * 1.5)) {
    if (FileHandle fd = try_connect(host, port, deadline, &why)) return fd;
    check(!deadline.over(), Kind::io, [&] {
      return cat(
          "rank ", rank, " could not reach rank 0 at ", host, ":", port, " within ", deadline.seconds, " s: ", why,
          "; is rank 0 running, are MASTER_ADDR and MASTER_PORT its host and port, is the port open between hosts?");
    });
    std::this_thread::sleep_for(std::chrono::duration<double>(std::min(pause, deadline.left())));
  }
}

bool send_all(int fd, std::string_view bytes, const Deadline& deadline) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n > 0) bytes.remove_prefix(std::size_t(n));
    if (n >= 0 || errno == EINTR) continue;
    if (errno != EAGAIN || !ready(fd, POLLOUT, deadline)) return false;
  }
  return true;
}

bool receive_all(int fd, char* to, std::size_t bytes, const Deadline& deadline) {
  while (bytes > 0) {
    const ssize_t n = ::recv(fd, to, bytes, 0);
    if (n > 0) to += n, bytes -= std::size_t(n);
    if (n == 0) return errno = ECONNRESET, false;
    if (n > 0 || errno == EINTR) continue;
    if (errno != EAGAIN || !ready(fd, POLLIN, deadline)) return false;
  }
  return true;
}

}  // namespace eg
