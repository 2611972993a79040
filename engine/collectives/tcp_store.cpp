// engine/collectives/tcp_store.cpp - a rank's connection to the store at rank 0, and at rank 0 also the store itself.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <exception>

#include "engine/collectives/tcp_server.h"
#include "engine/error.h"

namespace eg {
namespace {

class TcpStore : public Store {
 public:
  TcpStore(const Launch& launch, const Deadline& deadline, std::shared_ptr<TcpServer> server, bool keeper)
      : Store(launch.rank, launch.size), launch_(launch), server_(std::move(server)), keeper_(keeper) {
    // A stranger may sit on the port, or a dying store of the start before: whatever closes before it answers is tried again.
    for (;;) {
      fd_ = connect_to(launch.master_addr, launch.master_port, launch.rank, deadline);
      const auto reply = exchange({kStoreProtocol, launch.nonce, std::to_string(launch.size),
                                   std::to_string(launch.rank), std::to_string(::getpid()), host_name()},
                                  deadline);
      if (reply && reply->front() == "ok") return;
      check(!reply || reply->front() != "refused" || reply->size() != 2, Kind::usage,
            [&] { return cat("rank ", launch_.rank, " may not join the store ", where(), ": ", (*reply)[1]); });
      check(!deadline.over(), Kind::io, [&] {
        return cat("rank ", launch_.rank, ": what listens at ", launch_.master_addr, ":", launch_.master_port,
                   " does not answer as rank 0 would within ", deadline.seconds,
                   " s; is the port used by another program? Set another MASTER_PORT");
      });
      ::usleep(50'000);
    }
  }

  ~TcpStore() override {
    const bool failing = std::uncaught_exceptions() > 0;
    if (failing && keeper_)
      server_->set_trouble(cat("rank 0 on ", host_name(), " ended with an error; see its output"));
    // Without a bye the others learn that this rank failed.
    if (fd_ && !failing) send_all(fd_.get(), pack({"bye"}), within(1.0));
    fd_ = FileHandle();
    if (keeper_) server_->wait_for_leavers(failing ? std::min(3.0, patience_) : patience_);
  }

  std::string where() const override { return cat("tcp://", launch_.master_addr, ":", launch_.master_port); }
  void set(const std::string& key, const std::string& value) override {
    check_entry(key, value);
    request({"set", key, value});
  }
  std::optional<std::string> find(const std::string& key) override {
    Fields f = request({"find", key});
    return f.front() == "none" ? std::nullopt : std::optional(f.at(1));
  }
  std::int64_t add(const std::string& key, std::int64_t amount) override {
    check_entry(key);
    const Fields f = request({"add", key, std::to_string(amount)});
    std::int64_t value = 0;
    std::from_chars(f.at(1).data(), f.at(1).data() + f.at(1).size(), value);
    return value;
  }
  std::map<std::string, std::string> list(const std::string& prefix) override {
    Fields f = request({"list", prefix});
    std::map<std::string, std::string> found;
    for (std::size_t i = 1; i + 1 < f.size(); i += 2) found[f[i]] = std::move(f[i + 1]);
    return found;
  }
  std::unique_ptr<Store> second() override {
    return std::make_unique<TcpStore>(launch_, within(patience_), server_, false);
  }
  void set_patience(double seconds) override { patience_ = seconds; }

 private:
  /// The fields of the answer, or nothing when the connection broke (errno says how).
  std::optional<Fields> exchange(const Fields& message, const Deadline& deadline) {
    std::string bytes(4, '\0');
    if (!send_all(fd_.get(), pack(message), deadline) || !receive_all(fd_.get(), bytes.data(), 4, deadline))
      return std::nullopt;
    const std::size_t n = length_at(bytes);
    if (n > kLongestMessage) return errno = EPROTO, std::nullopt;
    bytes.resize(n);
    if (!receive_all(fd_.get(), bytes.data(), n, deadline)) return std::nullopt;
    auto fields = unpack(bytes);
    if (!fields || fields->empty()) return errno = EPROTO, std::nullopt;
    return fields;
  }

  Fields request(const Fields& message) {
    auto reply = fd_ ? exchange(message, within(patience_)) : std::nullopt;
    if (!reply) {
      const bool late = fd_ && errno == ETIMEDOUT;
      fd_ = FileHandle();  // an answer that comes later would be taken for that of the next request
      eg::fail(
          Kind::io,
          cat("rank ", rank(), ": rank 0, which keeps the store at ", launch_.master_addr, ":", launch_.master_port,
              late ? cat(", has not answered for ", patience_, " s: it is stopped, or its host is cut off")
                   : std::string(", has gone: killed, crashed or ended; see its output")));
    }
    check(reply->front() != "refused", Kind::io,
          [&] { return cat("rank ", rank(), ", store ", where(), ": ", reply->back()); });
    check(reply->size() > (message[0] == "find" && reply->front() == "ok" ? 1u
                           : message[0] == "add"                          ? 1u
                                                                          : 0u),
          Kind::io,
          [&] { return cat("rank ", rank(), ": the store ", where(), " gave a broken answer to '", message[0], "'"); });
    return std::move(*reply);
  }

  const Launch launch_;
  std::shared_ptr<TcpServer> server_;  // at rank 0
  const bool keeper_;                  // rank 0's first connection: it goes last
  FileHandle fd_;
  double patience_ = 30.0;
};

}  // namespace

std::unique_ptr<Store> tcp_store(const Launch& launch, const Deadline& deadline) {
  std::shared_ptr<TcpServer> server;
  if (launch.rank == 0) server = std::make_shared<TcpServer>(launch);
  return std::make_unique<TcpStore>(launch, deadline, server, launch.rank == 0);
}

}  // namespace eg
