// apps/bench/step_trace.cpp - see step_trace.h.
#include "apps/bench/step_trace.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace eg {
namespace {

using Interval = std::pair<double, double>;

/// Sorted and apart from each other.
std::vector<Interval> joined(std::vector<Interval> all) {
  std::sort(all.begin(), all.end());
  std::vector<Interval> out;
  for (const Interval& i : all) {
    if (i.second <= i.first) continue;
    if (!out.empty() && i.first <= out.back().second)
      out.back().second = std::max(out.back().second, i.second);
    else
      out.push_back(i);
  }
  return out;
}

double length(const std::vector<Interval>& apart) {
  double sum = 0.0;
  for (const auto& [begin, end] : apart) sum += end - begin;
  return sum;
}

double common(const std::vector<Interval>& a, const std::vector<Interval>& b) {
  double sum = 0.0;
  for (const auto& x : a)
    for (const auto& y : b) sum += std::max(0.0, std::min(x.second, y.second) - std::max(x.first, y.first));
  return sum;
}

double median_of(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + std::ptrdiff_t(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

const char* name_of(StepPart part) {
  constexpr const char* names[kStepParts] = {"data",    "prepare", "forward", "backward",
                                             "observe", "update",  "finish",  "wait"};
  return names[std::size_t(part)];
}

enum Row { kSteps, kParts, kObservations, kSums };

/// The collectives of one step: the ranges of one bucket are one, and what they took is added up.
std::vector<Span> whole_collectives(const std::vector<Span>& rank, int step) {
  std::vector<Span> out;
  for (const Span& s : rank) {
    if (s.kind != Span::Kind::collective || s.step != step) continue;
    if (s.range > 0 && !out.empty() && out.back().bucket == s.bucket && out.back().weights == s.weights)
      out.back().end = s.end, out.back().bytes += s.bytes;
    else
      out.push_back(s);
  }
  return out;
}

}  // namespace

int StepTrace::steps() const {
  int n = 0;
  for (const Span& s : ranks.at(0)) n = std::max(n, s.step + 1);
  return n;
}

StepTimes StepTrace::times(int rank, int step) const {
  StepTimes t;
  std::vector<Interval> work, forward, sums, gathers, blocking, waited;
  for (const Span& s : ranks.at(std::size_t(rank))) {
    if (s.step != step) continue;
    if (s.kind == Span::Kind::step) t.step += s.seconds();
    if (s.kind == Span::Kind::collective) {
      sums.emplace_back(s.begin, s.end);
      if (s.weights >= 0) gathers.emplace_back(s.begin, s.end);
      if (s.blocks) blocking.emplace_back(s.begin, s.end);
    }
    if (s.kind != Span::Kind::part) continue;
    if (s.part == StepPart::wait) {
      blocking.emplace_back(s.begin, s.end), waited.emplace_back(s.begin, s.end);
      continue;
    }
    work.emplace_back(s.begin, s.end);
    if (s.part == StepPart::data) t.data += s.seconds();
    if (s.part == StepPart::forward) t.forward += s.seconds(), forward.emplace_back(s.begin, s.end);
    if (s.part == StepPart::backward) t.backward += s.seconds();
    if (s.part == StepPart::update || s.part == StepPart::observe) t.update += s.seconds();
  }
  // While the host waits inside a collective, or the stream for weights, the part around it does not work.
  const auto waits = joined(blocking), works = joined(work);
  const auto exposed = [&](const std::vector<Interval>& apart) {
    std::vector<Interval> hidden;  // what of them works cover, waits left out
    for (const auto& s : apart)
      for (const auto& w : works)
        if (std::max(s.first, w.first) < std::min(s.second, w.second))
          hidden.emplace_back(std::max(s.first, w.first), std::min(s.second, w.second));
    return length(apart) - (length(joined(hidden)) - common(joined(hidden), waits));
  };
  t.forward -= common(joined(forward), joined(waited));
  const auto all = joined(sums), gathered = joined(gathers);
  t.communication = length(all), t.exposed = exposed(all);
  t.weights = length(gathered), t.weights_exposed = exposed(gathered);
  return t;
}

StepTimes StepTrace::median(int rank) const {
  std::vector<StepTimes> all;
  for (int step = 0; step < steps(); ++step) all.push_back(times(rank, step));
  StepTimes m;
  for (double StepTimes::*column :
       {&StepTimes::step, &StepTimes::data, &StepTimes::forward, &StepTimes::backward, &StepTimes::update,
        &StepTimes::communication, &StepTimes::exposed, &StepTimes::weights, &StepTimes::weights_exposed}) {
    std::vector<double> values;
    for (const StepTimes& t : all) values.push_back(t.*column);
    m.*column = median_of(values);
  }
  return m;
}

StepProfile StepTrace::profile() const {
  StepProfile p;
  p.ranks = int(ranks.size());
  int slowest = 0;
  for (int rank = 0; rank < p.ranks; ++rank) {
    std::vector<double> own, whole;
    for (int step = 0; step < steps(); ++step) {
      const StepTimes t = times(rank, step);
      own.push_back(t.step - t.exposed), whole.push_back(t.step);
    }
    if (median_of(own) > p.step) p.step = median_of(own), slowest = rank;
    p.measured = std::max(p.measured, median_of(whole));
  }

  // When a bucket is ready: backward's own time until its last group is final, that of sums in between left out. A method with two
  // gradients a step has both here, one after the other.
  const int steps = this->steps();
  std::vector<std::vector<double>> ready(buckets.size()), seconds(buckets.size());
  std::vector<double> backward;
  for (int step = 0; step < steps; ++step) {
    double gone = 0.0;
    std::vector<double> at(buckets.size(), 0.0);
    for (const Span& s : ranks[std::size_t(slowest)]) {
      if (s.kind != Span::Kind::part || s.step != step || s.part != StepPart::backward) continue;
      gone += s.seconds();
      for (std::size_t b = 0; b < buckets.size(); ++b)
        if (std::ranges::count(buckets[b].groups, s.group)) at[b] = gone;
    }
    backward.push_back(gone);
    for (std::size_t b = 0; b < buckets.size(); ++b) ready[b].push_back(at[b]);
  }
  p.backward = std::min(median_of(backward), p.step);

  std::vector<std::vector<double>> others;
  std::vector<int> passes(buckets.size(), 2);
  for (int step = 0; step < steps && p.ranks > 1; ++step) {
    std::vector<std::vector<Span>> all;
    for (const auto& rank : ranks) all.push_back(whole_collectives(rank, step));
    std::size_t other = 0;
    for (std::size_t i = 0; i < all[0].size(); ++i) {
      double least = all[0][i].seconds();
      for (const auto& rank : all) {
        check(rank.size() == all[0].size() && rank[i].name == all[0][i].name, Kind::internal,
              [&] { return cat("step ", step, " of the trace: ranks recorded different collectives"); });
        least = std::min(least, rank[i].seconds());
      }
      const Span& s = all[0][i];
      if (s.bucket >= 0) {
        seconds[std::size_t(s.bucket)].push_back(least), passes[std::size_t(s.bucket)] = s.passes;
        continue;
      }
      if (step == 0) p.others.push_back({s.bytes, s.passes, 0.0, 0.0}), others.emplace_back();
      if (other < others.size()) others[other].push_back(least);  // a method may exchange more in some steps
      ++other;
    }
  }
  for (std::size_t b = 0; b < buckets.size(); ++b)
    p.buckets.push_back({double(buckets[b].elements() * element_bytes), passes[b],
                         std::min(median_of(ready[b]), p.backward), median_of(seconds[b])});
  for (std::size_t i = 0; i < others.size(); ++i) p.others[i].seconds = median_of(others[i]);
  return p;
}

std::string StepTrace::name_of_bucket(int bucket) const {
  std::string groups;
  for (const int g : buckets.at(std::size_t(bucket)).groups)
    groups += cat(groups.empty() ? "" : ", ", g == depth ? "outside of blocks" : cat("block ", g));
  return cat("bucket ", bucket, ": ", groups);
}

nlohmann::json StepTrace::chrome() const {
  nlohmann::json events = nlohmann::json::array();
  for (int rank = 0; rank < int(ranks.size()); ++rank) {
    const auto about = [&](const char* what, int row, const std::string& name) {
      events.push_back({{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", row}, {"args", {{"name", name}}}});
    };
    about("process_name", 0, cat("rank ", rank)), about("thread_name", kSteps, "steps");
    about("thread_name", kParts, "forward, backward, update"), about("thread_name", kObservations, "observations");
    about("thread_name", kSums, "sums over ranks");
    const auto event = [&](const std::string& name, int row, double begin, double end, const Span& s,
                           nlohmann::json args) {
      args["step"] = s.step;
      events.push_back({{"name", name},
                        {"cat", row == kSums ? "communication" : "step"},
                        {"ph", "X"},
                        {"ts", begin * 1e6},
                        {"dur", (end - begin) * 1e6},
                        {"pid", rank},
                        {"tid", row},
                        {"args", std::move(args)}});
    };
    const auto& spans = ranks[std::size_t(rank)];
    for (std::size_t i = 0; i < spans.size(); ++i) {
      const Span& s = spans[i];
      if (s.kind == Span::Kind::step) event(cat("step ", s.step), kSteps, s.begin, s.end, s, {});
      if (s.kind != Span::Kind::part) continue;
      const std::string group = s.group < 0 ? "rest" : s.group == depth ? "outside of blocks" : cat("block ", s.group);
      if (s.part == StepPart::wait) {
        const std::string what = s.group < 0 ? "the embedding" : s.group == depth ? "the head" : group;
        event("waits for the weights of " + what, kParts, s.begin, s.end, s, {});
      } else if (s.part == StepPart::observe) {
        event(cat("observe ", group), kObservations, s.begin, s.end, s, {});
      } else if (s.part != StepPart::backward) {
        event(name_of(s.part), kParts, s.begin, s.end, s, {});
      } else {
        // The first of a backward pass brings the event that holds all of them: up to the next part of another kind.
        std::size_t before = i;
        while (before-- > 0 && (spans[before].kind != Span::Kind::part || spans[before].part == StepPart::observe)) {}
        if (before >= spans.size() || spans[before].part != StepPart::backward || spans[before].step != s.step) {
          double end = s.end;
          for (std::size_t k = i; k < spans.size() && spans[k].step == s.step; ++k) {
            if (spans[k].kind != Span::Kind::part || spans[k].part == StepPart::observe) continue;
            if (spans[k].part != StepPart::backward) break;
            end = std::max(end, spans[k].end);
          }
          event("backward", kParts, s.begin, end, s, {});
        }
        event(group, kParts, s.begin, s.end, s, {});
      }
    }
    for (int step = 0; step < steps(); ++step)
      for (const Span& s : whole_collectives(spans, step))
        event(s.weights >= 0 ? "weights of " + name_of_bucket(s.weights)
              : s.bucket < 0 ? s.name
                             : name_of_bucket(s.bucket),
              kSums, s.begin, s.end, s,
              {{"bytes", s.bytes},
               {"bucket", s.bucket},
               {"weights", s.weights},
               {"blocks", s.blocks},
               {"enqueued_us", s.enqueued * 1e6}});
  }
  return {{"traceEvents", events}, {"displayTimeUnit", "ms"}};
}

std::string spans_to_text(const std::deque<Span>& spans) {
  nlohmann::json all = nlohmann::json::array();
  for (const Span& s : spans)
    all.push_back({int(s.kind), s.step, s.enqueued, s.begin, s.end, int(s.part), s.group, s.name, s.bytes, s.passes,
                   s.bucket, s.range, s.weights, s.blocks});
  return all.dump();
}

std::vector<Span> spans_from_text(const std::string& text) {
  std::vector<Span> spans;
  for (const auto& j : nlohmann::json::parse(text))
    spans.push_back({Span::Kind(j[0].get<int>()), j[1], j[2], j[3], j[4], StepPart(j[5].get<int>()), j[6], j[7], j[8],
                     j[9], j[10], j[11], j[12], j[13]});
  return spans;
}

}  // namespace eg
