// engine/collectives/tcp_server.h - the thread at rank 0 that keeps a TCP store.
#pragma once
#include <atomic>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "engine/collectives/tcp_messages.h"

namespace eg {

/// One thread, one poll(): a connection is a few bytes of state, none can block another. What is not a rank of this start
/// (port scanners, browsers, garbage) is closed at its first wrong byte, or after five silent seconds.
class TcpServer {
 public:
  /// Listens at once; throws Error{io}.
  TcpServer(const Launch& launch);
  ~TcpServer();
  TcpServer(const TcpServer&) = delete;
  TcpServer& operator=(const TcpServer&) = delete;
  /// Waits until every rank but 0 that was there has left, at most so long.
  void wait_for_leavers(double seconds);
  /// Sets the trouble of the store from rank 0's own side.
  void set_trouble(const std::string& why);

 private:
  struct Connection {
    FileHandle fd;
    std::string in, out;
    int rank = -1;  // -1: has not said hello
    bool bye = false, closing = false;
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  };
  struct Member {
    std::string who;  // "pid 12 on host x"
    int connections = 0;
  };
  void serve();
  void accept_new();
  void read_from(Connection& c);
  void write_to(Connection& c);
  void handle_messages(Connection& c);
  void hello(Connection& c, const Fields& f);
  Fields answer(const Fields& f);
  void close_finished();
  void left(const Connection& c);

  const Launch launch_;
  FileHandle listener_, wake_read_, wake_write_;
  std::list<Connection> connections_;
  std::map<int, Member> members_;
  std::map<std::string, std::string> values_;
  std::map<std::string, std::int64_t> counters_;
  std::size_t held_ = 0;  // bytes of keys and values
  std::mutex mutex_;      // values_ and members_, against wait_for_leavers and set_trouble
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace eg
