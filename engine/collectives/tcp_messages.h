// engine/collectives/tcp_messages.h - what goes over a TCP store's wire, and the sockets under it.
//
// A message is its length (4 bytes, little-endian, at most kLongestMessage) and that many bytes: a list of fields, each again
// a length and bytes. A connection begins with one hello; then requests and answers alternate, one at a time.
//
//   hello   "evergrad-store 1" nonce size rank pid host      -> "ok" | "refused" why
//   request "set" key value | "find" key | "add" key amount | "list" prefix | "bye"
//   answer  "ok" [value | number | key value key value ...] | "none" | "refused" why
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/collectives/store.h"
#include "engine/file.h"

namespace eg {

inline constexpr const char* kStoreProtocol = "evergrad-store 1";
inline constexpr std::size_t kLongestMessage = std::size_t(64) << 20;  // a list of all ranks' values
inline constexpr std::size_t kLongestRequest = (std::size_t(1) << 20) + 4096;
inline constexpr std::size_t kLongestHello = 2048;

using Fields = std::vector<std::string>;

std::string pack(const Fields& fields);
/// The fields of a message's bytes (without its own length), or nothing when they are broken.
std::optional<Fields> unpack(std::string_view message);
std::uint32_t length_at(std::string_view bytes);  // of at least 4

/// A socket that listens; loopback only when `host` is a loopback address or "localhost". Throws Error{io}.
FileHandle listen_on(const std::string& host, int port);
/// Tries until the deadline. Throws Error{io} naming host, port and the last reason.
FileHandle connect_to(const std::string& host, int port, int rank, const Deadline& deadline);
/// Sends or receives everything; false when the other side closed, an error came, or the deadline passed (errno ETIMEDOUT).
bool send_all(int fd, std::string_view bytes, const Deadline& deadline);
bool receive_all(int fd, char* to, std::size_t bytes, const Deadline& deadline);

}  // namespace eg
