// engine/collectives/agree.cpp - see agree.h.
#include "engine/collectives/agree.h"

#include <algorithm>
#include <cstring>

#include "engine/error.h"

namespace eg {

void Collectives::sum_on_host(std::span<double> values) {
  if (size() == 1 || values.empty()) return;
  const std::string mine(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  const std::vector<std::string> all = all_gather_bytes(mine);
  std::vector<double> part(values.size());
  std::fill(values.begin(), values.end(), 0.0);
  for (std::size_t r = 0; r < all.size(); ++r) {
    check(all[r].size() == values.size_bytes(), Kind::internal, [&] {
      return cat("ranks disagree: rank ", rank(), " adds up ", values.size(), " numbers, rank ", r, " sends ",
                 all[r].size(), " bytes");
    });
    std::memcpy(part.data(), all[r].data(), values.size_bytes());
    for (std::size_t i = 0; i < part.size(); ++i) values[i] += part[i];
  }
}

bool on_any_rank(Collectives& ranks, bool mine) {
  double votes = mine ? 1.0 : 0.0;
  ranks.sum_on_host({&votes, 1});
  return votes > 0.0;
}

std::string first_text(Collectives& ranks, const std::string& mine) {
  if (ranks.size() == 1) return mine;
  const std::vector<std::string> all = ranks.all_gather_bytes(mine);
  for (std::size_t r = 0; r < all.size(); ++r)
    if (!all[r].empty()) return cat("rank ", r, " of ", all.size(), ": ", all[r]);
  return {};
}

void check_same_on_ranks(Collectives& ranks, const char* what, const std::string& mine, const char* remedy) {
  if (ranks.size() == 1) return;
  const std::vector<std::string> all = ranks.all_gather_bytes(mine);
  check(std::all_of(all.begin(), all.end(), [&](const std::string& t) { return t == all[0]; }), Kind::usage, [&] {
    std::string list;
    for (std::size_t r = 0; r < all.size(); ++r) list += cat(r ? "; " : "", "rank ", r, ": ", all[r]);
    return cat("the ranks differ in ", what, " (", list, "); ", remedy);
  });
}

}  // namespace eg
