// engine/collectives/tcp_server.cpp - see tcp_server.h.
#include "engine/collectives/tcp_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>

#include "engine/error.h"

namespace eg {
namespace {

constexpr std::size_t kMostStrangers = 64;                 // connections without a hello
constexpr std::size_t kMostHeld = std::size_t(256) << 20;  // bytes of the whole table
constexpr std::chrono::seconds kHelloTime{5};

std::optional<std::int64_t> integer(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

}  // namespace

TcpServer::TcpServer(const Launch& launch)
    : launch_(launch), listener_(listen_on(launch.master_addr, launch.master_port)) {
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, Kind::io, [] { return std::string("cannot make a pipe"); });
  wake_read_ = FileHandle(ends[0]), wake_write_ = FileHandle(ends[1]);
  thread_ = std::thread([this] { serve(); });
}

TcpServer::~TcpServer() {
  stop_ = true;
  [[maybe_unused]] const auto n = ::write(wake_write_.get(), "x", 1);
  thread_.join();
}

void TcpServer::wait_for_leavers(double seconds) {
  for (const Deadline deadline = within(seconds); !deadline.over();) {
    {
      const std::lock_guard lock(mutex_);
      bool alone = true;
      for (const auto& [rank, member] : members_) alone &= rank == 0 || member.connections == 0;
      if (alone) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

void TcpServer::set_trouble(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (counters_["troubles"]++ == 0) values_[Store::kTrouble] = why;
}

void TcpServer::serve() {
  while (!stop_) {
    std::vector<pollfd> polled{{listener_.get(), POLLIN, 0}, {wake_read_.get(), POLLIN, 0}};
    for (const Connection& c : connections_) polled.push_back({c.fd.get(), short(c.out.empty() ? POLLIN : POLLOUT), 0});
    if (::poll(polled.data(), polled.size(), 1000) < 0 && errno != EINTR) return;
    std::size_t at = 2;
    for (Connection& c : connections_) {
      const short events = polled[at++].revents;
      if (events & POLLOUT) write_to(c);
      if (events & (POLLIN | POLLHUP | POLLERR)) read_from(c);
    }
    if (polled[0].revents & POLLIN) accept_new();
    close_finished();
  }
}

void TcpServer::accept_new() {
  for (;;) {
    FileHandle fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && (errno == EMFILE || errno == ENFILE)) ::usleep(10'000);  // no descriptor free: one may be, soon
    if (!fd) return;
    std::size_t strangers = 0;
    for (const Connection& c : connections_) strangers += c.rank < 0;
    if (strangers < kMostStrangers + std::size_t(launch_.size)) connections_.emplace_back().fd = std::move(fd);
  }
}

void TcpServer::read_from(Connection& c) {
  std::array<char, 16384> buffer;
  const std::size_t most = 4 + (c.rank < 0 ? kLongestHello : kLongestRequest);
  for (;;) {
    const ssize_t n = ::recv(c.fd.get(), buffer.data(), buffer.size(), 0);
    if (n > 0) c.in.append(buffer.data(), std::size_t(n));
    if (n > 0 && c.in.size() <= most) continue;
    if (n < 0 && errno == EINTR) continue;
    if (n == 0 || (n < 0 && errno != EAGAIN)) c.closing = true;
    break;
  }
  handle_messages(c);
}

void TcpServer::handle_messages(Connection& c) {
  while (c.in.size() >= 4 && !c.bye) {
    const std::size_t n = length_at(c.in);
    if (n > (c.rank < 0 ? kLongestHello : kLongestRequest)) return void(c.closing = true);
    if (c.in.size() < 4 + n) return;
    const auto fields = unpack(std::string_view(c.in).substr(4, n));
    c.in.erase(0, 4 + n);
    if (!fields || fields->empty()) return void(c.closing = true);
    if (c.rank < 0) {
      hello(c, *fields);
    } else if (fields->front() == "bye") {
      c.bye = c.closing = true;
    } else {
      c.out += pack(answer(*fields));
    }
    write_to(c);
    if (c.out.size() > kLongestMessage) c.closing = true;  // asks and asks, and never reads
    if (c.closing) return;
  }
}

void TcpServer::write_to(Connection& c) {
  while (!c.out.empty()) {
    const ssize_t n = ::send(c.fd.get(), c.out.data(), c.out.size(), MSG_NOSIGNAL);
    if (n > 0) c.out.erase(0, std::size_t(n));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) c.closing = true;
    if (n <= 0) return;
  }
}

/// A stranger who does not know the protocol is not answered; a rank that cannot join is told why.
void TcpServer::hello(Connection& c, const Fields& f) {
  if (f.size() != 6 || f[0] != kStoreProtocol) return void(c.closing = true);
  const auto size = integer(f[2]), rank = integer(f[3]);
  const std::string who = cat("pid ", f[4], " on host ", f[5]);
  const std::lock_guard lock(mutex_);
  std::string why;
  if (f[1] != launch_.nonce) {
    why = cat("it belongs to another start (nonce '", launch_.nonce, "', and this process has '", f[1],
              "'); set another MASTER_PORT, or the same EVERGRAD_NONCE on all ranks");
  } else if (!size || !rank || *size != launch_.size) {
    why = cat("rank 0 was told that there are ", launch_.size, " ranks and this process that there are ", f[2],
              "; start all ranks with the same number");
  } else if (*rank < 0 || *rank >= launch_.size) {
    why = cat("there is no rank ", f[3], " of ", launch_.size);
  } else if (const auto m = members_.find(int(*rank)); m != members_.end() && m->second.who != who) {
    why = cat("rank ", *rank, " has already arrived (", m->second.who, "; this is ", who,
              "); were two processes started as the same rank, or does an earlier start still run?");
  }
  if (!why.empty()) {
    c.out += pack({"refused", why});
    write_to(c);
    c.closing = true;
    return;
  }
  c.rank = int(*rank);
  members_[c.rank].who = who;
  ++members_[c.rank].connections;
  c.out += pack({"ok"});
}

Fields TcpServer::answer(const Fields& f) {
  const std::lock_guard lock(mutex_);
  if (f[0] == "set" && f.size() == 3) {
    std::string& value = values_[f[1]];
    const std::size_t after = held_ - value.size() + f[2].size() + (value.empty() ? f[1].size() : 0);
    if (after > kMostHeld) return {"refused", cat("the store is full: more than ", kMostHeld >> 20, " MiB")};
    held_ = after, value = f[2];
    return {"ok"};
  }
  if (f[0] == "find" && f.size() == 2) {
    const auto at = values_.find(f[1]);
    return at == values_.end() ? Fields{"none"} : Fields{"ok", at->second};
  }
  if (f[0] == "add" && f.size() == 3 && integer(f[2])) return {"ok", std::to_string(counters_[f[1]] += *integer(f[2]))};
  if (f[0] == "list" && f.size() == 2) {
    Fields all{"ok"};
    std::size_t bytes = 0;
    for (auto at = values_.lower_bound(f[1]); at != values_.end() && at->first.rfind(f[1], 0) == 0; ++at) {
      bytes += at->first.size() + at->second.size() + 8;
      if (bytes > kLongestMessage / 2)
        return {"refused", cat("the values under '", f[1], "' are too long for one message")};
      all.push_back(at->first), all.push_back(at->second);
    }
    return all;
  }
  return {"refused", cat("the store does not know the request '", f[0].substr(0, 20), "'")};
}

void TcpServer::close_finished() {
  const auto now = std::chrono::steady_clock::now();
  for (auto c = connections_.begin(); c != connections_.end();) {
    const bool silent = c->rank < 0 && now - c->since > kHelloTime;
    if (!c->closing && !silent) {
      ++c;
      continue;
    }
    if (c->rank >= 0) left(*c);
    c = connections_.erase(c);
  }
}

/// A process that closes without a bye has died: its kernel closed for it.
void TcpServer::left(const Connection& c) {
  const std::lock_guard lock(mutex_);
  Member& member = members_[c.rank];
  --member.connections;
  if (c.bye) return;
  const std::string why = cat("rank ", c.rank, " (", member.who, ") ended without a word: killed, or crashed");
  values_[cat("gone/", c.rank)] = why;
  if (counters_["troubles"]++ == 0) values_[Store::kTrouble] = why;
}

}  // namespace eg
