// Where ranks meet: the same contract for the store in memory, over TCP and in a folder; then what each may not survive.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <set>
#include <thread>

#include "engine/collectives/store.h"
#include "engine/collectives/tcp_messages.h"
#include "engine/error.h"
#include "tests/engine/temporary_folder.h"

using namespace eg;

namespace {

int free_port() {
  const FileHandle fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in a{};
  a.sin_family = AF_INET, a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t n = sizeof a;
  REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&a), n) == 0);
  REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a), &n) == 0);
  return ntohs(a.sin_port);
}

Launch rank_of(int rank, int size, int port = 0, const std::string& nonce = "n1") {
  Launch l;
  l.rank = rank, l.size = size, l.local_rank = rank, l.local_size = size;
  l.how = "torchrun", l.master_addr = "127.0.0.1", l.master_port = port, l.nonce = nonce;
  return l;
}

/// Runs body(rank) on a thread per rank; texts of what they threw, by rank.
std::vector<std::string> on_ranks(int size, const std::function<void(int)>& body) {
  std::vector<std::string> thrown(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      try {
        body(r);
      } catch (const std::exception& e) { thrown[std::size_t(r)] = e.what(); }
    });
  for (std::thread& t : threads) t.join();
  return thrown;
}

bool says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) {
    if (text.find(part) != std::string::npos) continue;
    MESSAGE("expected '", part, "' in: ", text);
    return false;
  }
  return true;
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "nothing was thrown";
}

using Open = std::function<std::unique_ptr<Store>(int rank, int size)>;

/// What every store promises, with four ranks.
void check_contract(const Open& open) {
  std::atomic<bool> seen[101] = {};
  std::atomic<int> twice{0}, wrong{0};
  const auto thrown = on_ranks(4, [&](int r) {
    const auto store = open(r, 4);
    const auto all = store->gather("first", std::string(std::size_t(r), 'x') + char('0' + r), within(20));
    wrong += all != std::vector<std::string>{"0", "x1", "xx2", "xxx3"};
    for (int i = 0; i < 25; ++i) {  // every value of a counter is given out once
      const std::int64_t v = store->add("ticket", 1);
      if (v < 1 || v > 100 || seen[v].exchange(true)) ++twice;
    }
    store->barrier("counted", within(20));
    wrong += store->add("ticket", 0) != 100;
    if (r == 2) store->set("a/b c%", std::string("zero \0 and \xff", 12));
    wrong += store->get("a/b c%", within(20)) != std::string("zero \0 and \xff", 12);
    wrong += store->find("absent").has_value();
    store->set(cat("list/", r), std::to_string(r * r));
    store->barrier("listed", within(20));
    wrong += store->list("list/") !=
             std::map<std::string, std::string>{{"list/0", "0"}, {"list/1", "1"}, {"list/2", "4"}, {"list/3", "9"}};
    if (r == 1) store->set("big", std::string(Store::kLongestValue, 'b'));
    wrong += store->get("big", within(20)).size() != Store::kLongestValue;
    std::thread([&] { wrong += store->second()->find("a/b c%") == std::nullopt; }).join();
    store->barrier("end", within(20));
  });
  for (const std::string& t : thrown) CHECK(t == "");
  CHECK(wrong == 0);
  CHECK(twice == 0);
}

/// Two of four ranks do not come; then one says that it cannot go on.
void check_failures(const Open& open) {
  const auto late = on_ranks(2, [&](int r) {
    const auto store = open(r == 0 ? 0 : 3, 4);
    store->barrier("start", within(0.3));
  });
  int named = 0;  // who waits longer may hear of the other's failure instead
  for (const std::string& t : late)
    named += t.find("ranks 1, 2 of 4 have not arrived at 'start' after 0.3 s") != std::string::npos;
  CHECK(named >= 1);
}

void check_fail(const Open& open) {
  const auto told = on_ranks(2, [&](int r) {
    const auto store = open(r, 2);
    if (r == 1) return store->fail("rank 1 cannot read its shard");
    store->barrier("start", within(20));
  });
  CHECK(says(told[0], {"rank 1 cannot read its shard"}));
}

/// A store in which all arrive, and one then fails, between two looks of this rank.
class Overtaken : public Store {
 public:
  Overtaken() : Store(0, 2) {}
  std::string where() const override { return "here"; }
  void set(const std::string&, const std::string&) override {}
  std::optional<std::string> find(const std::string&) override { return "rank 1 does not agree"; }
  std::int64_t add(const std::string&, std::int64_t) override { return std::min(++calls_, arrived_); }
  std::map<std::string, std::string> list(const std::string&) override { return {{"card/0", "a"}, {"card/1", "b"}}; }
  std::unique_ptr<Store> second() override { return nullptr; }
  void set_patience(double) override {}
  std::int64_t calls_ = 0, arrived_ = 2;
};

}  // namespace

TEST_CASE("store: in memory") {
  auto four = memory_stores(4);
  check_contract([&](int r, int) { return std::move(four[std::size_t(r)]); });
  auto more = memory_stores(4);
  check_failures([&](int r, int) { return std::move(more[std::size_t(r)]); });
  auto two = memory_stores(2);
  check_fail([&](int r, int) { return std::move(two[std::size_t(r)]); });
}

TEST_CASE("store: a failure after all have arrived does not take back what they said") {
  Overtaken store;
  CHECK(store.gather("card", "a", within(20)) == std::vector<std::string>{"a", "b"});
  store.calls_ = 0, store.arrived_ = 1;  // the other one has failed before it came
  CHECK(says(message_of([&] { store.gather("card", "a", within(20)); }), {"rank 1 does not agree"}));
}

TEST_CASE("store: over TCP") {
  int port = free_port();
  check_contract([&](int r, int n) { return tcp_store(rank_of(r, n, port), within(20)); });
  port = free_port();
  check_failures([&](int r, int n) { return tcp_store(rank_of(r, n, port), within(20)); });
  port = free_port();
  check_fail([&](int r, int n) { return tcp_store(rank_of(r, n, port), within(20)); });
}

TEST_CASE("store: in a folder") {
  const TemporaryFolder folder;
  check_contract([&](int r, int n) { return file_store(rank_of(r, n, 0, "first"), folder.path().string()); });
  CHECK(std::filesystem::is_empty(folder.path()));  // the last rank has tidied up
  for (int start = 0; start < 100; ++start)         // however the others leave beside it
    on_ranks(4, [&](int r) { file_store(rank_of(r, 4, 0, cat("brief", start)), folder.path().string()); });
  CHECK(std::filesystem::is_empty(folder.path()));
  check_failures([&](int r, int n) { return file_store(rank_of(r, n, 0, "second"), folder.path().string()); });
  check_fail([&](int r, int n) { return file_store(rank_of(r, n, 0, "third"), folder.path().string()); });
}

TEST_CASE("store: garbage, scanners and silent strangers do not disturb a TCP store") {
  const int port = free_port();
  const auto thrown = on_ranks(2, [&](int r) {
    const auto store = tcp_store(rank_of(r, 2, port), within(20));
    std::vector<FileHandle> strangers;
    if (r == 1) {
      const std::string huge("\xff\xff\xff\xff", 4), broken = std::string("\x08\0\0\0\xff\xff\xff\x7f", 8) + "abcd";
      for (const std::string& text :
           {std::string("GET / HTTP/1.1\r\n\r\n"), huge, broken, std::string(1, '\0'),
            pack({"evergrad-store 0", "n1", "2", "1", "1", "x"}), pack({"set", "a", "b"}), pack({})}) {
        strangers.push_back(connect_to("127.0.0.1", port, 9, within(5)));
        CHECK(send_all(strangers.back().get(), text, within(5)));
      }
      for (int i = 0; i < 100; ++i) strangers.push_back(connect_to("127.0.0.1", port, 9, within(5)));
    }
    for (int i = 0; i < 20; ++i) store->barrier(cat("b", i), within(20));
    CHECK(store->find("a") == std::nullopt);
  });
  for (const std::string& t : thrown) CHECK(t == "");
}

TEST_CASE("store: a member that sends nonsense is closed, and counts as dead") {
  const int port = free_port();
  const auto thrown = on_ranks(2, [&](int r) {
    if (r == 0) return tcp_store(rank_of(0, 2, port), within(20))->barrier("never", within(20));
    const FileHandle fd = connect_to("127.0.0.1", port, 1, within(20));
    CHECK(send_all(fd.get(), pack({kStoreProtocol, "n1", "2", "1", "77", "far"}), within(5)));
    char answer[10];
    CHECK(receive_all(fd.get(), answer, sizeof answer, within(5)));  // ok
    CHECK(send_all(fd.get(), std::string("\xff\xff\xff\xff", 4), within(5)));
    CHECK_FALSE(receive_all(fd.get(), answer, 1, within(5)));
  });
  CHECK(says(thrown[0], {"rank 1 (pid 77 on host far)", "ended without a word"}));
}

TEST_CASE("store: refusals say what does not fit") {
  const int port = free_port();
  const auto first = tcp_store(rank_of(0, 2, port), within(5));
  CHECK(says(message_of([&] { tcp_store(rank_of(1, 2, port, "other"), within(5)); }),
             {"another start", "'n1'", "'other'", "MASTER_PORT"}));
  CHECK(says(message_of([&] { tcp_store(rank_of(1, 3, port), within(5)); }), {"there are 2 ranks", "there are 3"}));
  CHECK(says(message_of([&] { tcp_store(rank_of(0, 2, port), within(5)); }),
             {"cannot listen on port", "in use", "earlier start"}));
  const int nobody = free_port();
  CHECK(says(message_of([&] { tcp_store(rank_of(1, 2, nobody), within(0.2)); }),
             {cat("rank 1 could not reach rank 0 at 127.0.0.1:", nobody, " within 0.2 s"), "refused"}));
  Launch unknown = rank_of(1, 2, nobody);
  unknown.master_addr = "no-such-host.invalid";
  CHECK(says(message_of([&] { tcp_store(unknown, within(0.1)); }), {"no-such-host.invalid", "name is not known"}));

  const TemporaryFolder folder;
  const auto one = file_store(rank_of(1, 2), folder.path().string());
  CHECK(says(message_of([&] { file_store(rank_of(1, 2), folder.path().string()); }),
             {"rank 1 has already arrived", "EVERGRAD_NONCE"}));
  CHECK(says(message_of([&] { file_store(rank_of(0, 3), folder.path().string()); }),
             {"there are 2 ranks", "there are 3"}));
  CHECK(says(message_of([&] { file_store(rank_of(0, 2, 0, ""), folder.path().string()); }), {"EVERGRAD_NONCE"}));
  CHECK(says(message_of([&] { file_store(rank_of(0, 2), "relative"); }), {"absolute"}));
  CHECK(says(message_of([&] { one->set(std::string(201, 'k'), ""); }), {"1 to 200"}));
  CHECK(says(message_of([&] { one->set("k", std::string(Store::kLongestValue + 1, 'v')); }), {"1048577 bytes"}));
}

TEST_CASE("store: a half-written or foreign file is not an entry") {
  const TemporaryFolder folder;
  const auto store = file_store(rank_of(0, 2, 0, "n/1"), folder.path().string());
  store->set("x", "a value that will be cut");
  std::filesystem::path file;
  for (const auto& e : std::filesystem::directory_iterator(folder.path() / "evergrad-n%2f1"))
    if (e.path().filename() == "x") file = e.path();
  REQUIRE(std::filesystem::exists(file));
  std::filesystem::resize_file(file, 20);
  CHECK(store->find("x") == std::nullopt);
  std::ofstream(file) << "no checksum stands at the end of this";
  CHECK(store->find("x") == std::nullopt);
  CHECK(store->list("x").empty());
  store->set("x", "whole");
  CHECK(store->find("x") == "whole");
}

TEST_CASE("store: which one, and what is missing") {
  Launch l = rank_of(0, 2);
  l.master_addr = "";
  CHECK(says(message_of([&] { open_store(l, within(1), ""); }), {"does not know where ranks meet", "MASTER_ADDR"}));
  for (const char* bad : {"tcp://", "tcp://h", "tcp://h:0", "tcp://h:70000", "tcp://:5", "tcp://h:5x"})
    CHECK(says(message_of([&] { open_store(l, within(1), bad); }), {bad, "tcp://HOST:PORT"}));
  CHECK(says(message_of([&] { open_store(l, within(1), "http://x"); }), {"http://x", "file:///FOLDER"}));
  CHECK(open_store(rank_of(0, 1), within(1), "")->where() == "memory");
  const int port = free_port();
  CHECK(open_store(rank_of(0, 1), within(5), cat("tcp://localhost:", port))->where() == cat("tcp://localhost:", port));
  CHECK(rank_list({0, 2, 3, 5, 6, 7}) == "0, 2, 3, 5 to 7");
}
