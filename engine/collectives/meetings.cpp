// engine/collectives/meetings.cpp - see meetings.h. An entry is the meeting's number, a colon, and the text.
#include "engine/collectives/meetings.h"

#include <unistd.h>

#include <algorithm>
#include <optional>

#include "engine/error.h"

namespace eg {
namespace {

/// The text that a rank has said at meeting `number`, if it is there yet.
std::optional<std::string> said_at(std::uint64_t number, const std::string& entry) {
  const std::string head = cat(number, ':');
  return entry.compare(0, head.size(), head) == 0 ? std::optional(entry.substr(head.size())) : std::nullopt;
}

}  // namespace

std::vector<std::string> Meetings::gather(const std::string& mine, const Deadline& deadline) {
  const std::uint64_t number = ++held_;
  const std::string place = cat(name_, "/", number % 2, "/");
  store_.set(cat(place, store_.rank()), cat(number, ':', mine));
  for (useconds_t rest = 20;; rest = std::min<useconds_t>(2 * rest, 2000)) {
    const auto entries = store_.list(place);
    std::vector<std::string> all;
    std::vector<int> missing;
    for (int r = 0; r < store_.size(); ++r) {
      const auto entry = entries.find(cat(place, r));
      auto text = entry == entries.end() ? std::nullopt : said_at(number, entry->second);
      if (!text) missing.push_back(r);
      all.push_back(std::move(text).value_or(""));
    }
    if (missing.empty()) return all;
    if (const auto why = store_.trouble()) fail(Kind::io, *why);
    check(!deadline.over(), Kind::io, [&] {
      return cat("rank ", store_.rank(), ": rank(s) ", rank_list(missing), " of ", store_.size(),
                 " have not come to meeting ", number, " of '", name_, "' after ", deadline.seconds, " s (store ",
                 store_.where(), "); look at their output");
    });
    ::usleep(rest);
  }
}

}  // namespace eg
