// engine/collectives/own_address.cpp - see own_address.h.
#include "engine/collectives/own_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "engine/collectives/store.h"
#include "engine/error.h"
#include "engine/file.h"

namespace eg {

std::string own_address() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return host_name();
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, ::freeifaddrs);
  for (const ifaddrs* i = list; i; i = i->ifa_next) {
    constexpr unsigned kCarries = IFF_UP | IFF_RUNNING;  // bridges without anybody are up, too
    if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & kCarries) != kCarries ||
        (i->ifa_flags & IFF_LOOPBACK))
      continue;
    sockaddr_in address{};
    std::memcpy(&address, i->ifa_addr, sizeof address);
    if (ntohl(address.sin_addr.s_addr) >> 16 == 0xa9fe) continue;  // 169.254: a link to a management controller
    std::array<char, INET_ADDRSTRLEN> text{};
    if (::inet_ntop(AF_INET, &address.sin_addr, text.data(), text.size())) return text.data();
  }
  return host_name();
}

int free_port() {
  const FileHandle fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  socklen_t size = sizeof any;
  const bool found = fd.get() >= 0 && ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), size) == 0 &&
                     ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&any), &size) == 0;
  check(found, Kind::io, [] { return cat("no free TCP port on this host: ", std::strerror(errno)); });
  return ntohs(any.sin_port);
}

}  // namespace eg
