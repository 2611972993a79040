// engine/collectives/preflight.cpp - see preflight.h.
#include "engine/collectives/preflight.h"

#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <string_view>

#include "engine/error.h"
#include "engine/file.h"

namespace eg {

void check_shared_memory(const std::string& host, std::uint64_t free_bytes, int ranks) {
  if (ranks < 2) return;
  const std::uint64_t need = kSharedMemoryPerRank * std::uint64_t(ranks);
  check(free_bytes >= need, Kind::device, [&] {
    return cat("/dev/shm of ", host, " has room for ", free_bytes >> 20, " MiB, and NCCL wants about ", need >> 20,
               " MiB for ", ranks,
               " ranks; start the container with --shm-size=1g (or --ipc=host), or set NCCL_SHM_DISABLE=1");
  });
}

std::string address_towards(const std::string& where) {
  constexpr std::string_view scheme = "tcp://";
  const std::size_t colon = where.rfind(':');
  if (!where.starts_with(scheme) || colon == std::string::npos || colon < scheme.size()) return "-";
  std::string host = where.substr(scheme.size(), colon - scheme.size());
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC, hints.ai_socktype = SOCK_DGRAM;
  addrinfo* first = nullptr;
  if (::getaddrinfo(host.c_str(), where.c_str() + colon + 1, &hints, &first) != 0) return "-";
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> found(first, ::freeaddrinfo);
  for (const addrinfo* a = first; a != nullptr; a = a->ai_next) {
    // Connecting a datagram socket chooses the source address, and no packet leaves.
    const FileHandle fd(::socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    char text[NI_MAXHOST] = {};
    if (fd && ::connect(fd.get(), a->ai_addr, a->ai_addrlen) == 0 &&
        ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &length) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&own), length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
      return text;
  }
  return "-";
}

}  // namespace eg
