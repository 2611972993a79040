// data/streams/names.cpp - protocols and class samplings by name.
#include "data/stream.h"
#include "engine/error.h"

namespace eg {
namespace {
struct Named {
  Protocol protocol;
  const char* name;
};
constexpr Named kProtocols[] = {{Protocol::class_subset, "class-subset"},
                                {Protocol::class_incremental, "class-incremental"},
                                {Protocol::five_plus_one, "5+1"},
                                {Protocol::groups, "groups"},
                                {Protocol::label_permutation, "label-permutation"},
                                {Protocol::input_permutation, "input-permutation"},
                                {Protocol::random_label, "random-label"},
                                {Protocol::noisy_label, "noisy-label"},
                                {Protocol::domain, "domain"}};
std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& n : names) text += (text.empty() ? "" : ", ") + n;
  return text;
}
}  // namespace

const char* to_string(Protocol protocol) {
  for (const Named& n : kProtocols)
    if (n.protocol == protocol) return n.name;
  return "?";
}

const std::vector<std::string>& protocol_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Named& n : kProtocols) all.push_back(n.name);
    return all;
  }();
  return names;
}

Protocol parse_protocol(const std::string& name) {
  for (const Named& n : kProtocols)
    if (name == n.name) return n.protocol;
  fail(Kind::usage, cat("unknown protocol '", name, "'; there are ", joined(protocol_names())));
}

const char* to_string(ClassSampling sampling) {
  switch (sampling) {
    case ClassSampling::automatic: return "auto";
    case ClassSampling::disjoint: return "disjoint";
    case ClassSampling::deck: return "deck";
    case ClassSampling::iid: return "iid";
  }
  return "?";
}

ClassSampling parse_class_sampling(const std::string& name) {
  for (const ClassSampling s :
       {ClassSampling::automatic, ClassSampling::disjoint, ClassSampling::deck, ClassSampling::iid})
    if (name == to_string(s)) return s;
  fail(Kind::usage, cat("unknown class sampling '", name, "'; there are auto, disjoint, deck and iid"));
}

ClassOrder parse_class_order(const std::string& name) {
  if (name == "in-turn") return ClassOrder::in_turn;
  if (name == "interleaved") return ClassOrder::interleaved;
  if (name == "mixed") return ClassOrder::mixed;
  fail(Kind::usage, cat("unknown order of data sets '", name, "'; there are in-turn, interleaved and mixed"));
}

}  // namespace eg
