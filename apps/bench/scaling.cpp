// apps/bench/scaling.cpp - see scaling.h.
#include "apps/bench/scaling.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/error.h"

namespace eg {

std::string to_string(SumBy by) {
  switch (by) {
    case SumBy::deal: return "deal";
    case SumBy::ring: return "ring";
    default: return "tree";
  }
}

namespace {

double over(const Link& link, double messages, double bytes) {
  return messages * link.latency + bytes / link.bytes_per_second;
}

/// Half an all-reduce among n: each sends n - 1 messages of an n-th. The way in and the way out cost the same.
double pass_among(const Link& link, int n, double bytes) { return over(link, n - 1, bytes * (n - 1) / n); }

}  // namespace

double seconds_of(double bytes, int passes, int ranks, SumBy by, const Cluster& c) {
  check(ranks >= 1 && c.node >= 1 && (ranks <= c.node || ranks % c.node == 0), Kind::usage, [&] {
    return cat("the scaling model: ", ranks, " ranks do not fill nodes of ", c.node,
               "; give multiples of it in --scaling-ranks, or another --node-ranks");
  });
  if (ranks == 1) return 0.0;
  if (ranks <= c.node) return passes * pass_among(c.inside, ranks, bytes);
  const int nodes = ranks / c.node;
  const double part = bytes / ranks;
  if (by == SumBy::deal)
    return passes *
           (over(c.inside, c.node - 1, part * (c.node - 1)) + over(c.between, ranks - c.node, part * (ranks - c.node)));
  // Inside a node first, so that every rank has the node's sum of one part to exchange with its like in other nodes.
  const double share = bytes / c.node;
  const double between = by == SumBy::ring ? pass_among(c.between, nodes, share)
                                           : over(c.between, std::ceil(std::log2(double(nodes))), share);
  return passes * (pass_among(c.inside, c.node, bytes) + between);
}

Prediction predict(const StepProfile& p, int ranks, SumBy by, const Cluster& c) {
  const auto cost = [&](const Message& m) { return seconds_of(m.bytes, m.passes, ranks, by, c); };
  Prediction out;
  double link_free = 0.0, others = 0.0;  // seconds after backward began
  for (const Message& b : p.buckets) {
    link_free = std::max(link_free, b.ready) + cost(b);
    out.communication += cost(b);
  }
  // What is no sum of gradients is the library's affair, which takes the quicker way.
  for (const Message& m : p.others)
    others += std::min(seconds_of(m.bytes, m.passes, ranks, SumBy::ring, c),
                       seconds_of(m.bytes, m.passes, ranks, SumBy::tree, c));
  out.without_overlap = p.step / (p.step + out.communication + others);
  out.communication += others;
  out.exposed = std::max(0.0, link_free - p.backward) + others;
  out.efficiency = p.step / (p.step + out.exposed);
  return out;
}

Link fit_link(const StepProfile& p, double* worst) {
  // seconds = x * latency + y * seconds per byte, each equation divided by its seconds.
  struct Point {
    double x, y, seconds;
  };
  std::vector<Point> points;
  for (const auto* list : {&p.buckets, &p.others})
    for (const Message& m : *list)
      if (m.seconds > 0.0 && p.ranks > 1)
        points.push_back({double(m.passes) * (p.ranks - 1), m.passes * m.bytes * (p.ranks - 1) / p.ranks, m.seconds});
  check(!points.empty(), Kind::usage, [&] {
    return cat(
        "the scaling model: a trace of ", p.ranks, " rank", p.ranks == 1 ? "" : "s",
        " holds no sums to learn a link from; trace several ranks (mpirun -n 2 ...), or type --node-gb-per-s and "
        "--node-latency-us");
  });
  double xx = 0, xy = 0, yy = 0, x1 = 0, y1 = 0;
  for (const Point& q : points) {
    const double x = q.x / q.seconds, y = q.y / q.seconds;
    xx += x * x, xy += x * y, yy += y * y, x1 += x, y1 += y;
  }
  const double determinant = xx * yy - xy * xy;
  double latency = yy > 0.0 ? 0.0 : x1 / xx, per_byte = yy > 0.0 ? y1 / yy : 0.0;  // one size: all of it is bandwidth
  if (determinant > 1e-9 * xx * yy) {
    const double l = (x1 * yy - y1 * xy) / determinant, b = (y1 * xx - x1 * xy) / determinant;
    if (l >= 0.0 && b > 0.0) latency = l, per_byte = b;
    if (b <= 0.0) latency = x1 / xx, per_byte = 0.0;  // bytes do not show: all of it is latency
  }
  *worst = 0.0;
  for (const Point& q : points) *worst = std::max(*worst, std::abs((q.x * latency + q.y * per_byte) / q.seconds - 1.0));
  return {latency, 1.0 / per_byte};
}

nlohmann::json to_json(const StepProfile& p) {
  const auto list = [](const std::vector<Message>& messages) {
    nlohmann::json all = nlohmann::json::array();
    for (const Message& m : messages)
      all.push_back({{"bytes", m.bytes}, {"passes", m.passes}, {"ready_s", m.ready}, {"seconds", m.seconds}});
    return all;
  };
  return {{"what", p.what},
          {"device", p.device},
          {"ranks", p.ranks},
          {"step_s", p.step},
          {"backward_s", p.backward},
          {"measured_step_s", p.measured},
          {"buckets", list(p.buckets)},
          {"others", list(p.others)}};
}

StepProfile profile_from_json(const nlohmann::json& trace, const std::string& file) {
  StepProfile p;
  try {
    const nlohmann::json& j = trace.at("otherData").at("profile");
    const auto list = [](const nlohmann::json& all) {
      std::vector<Message> messages;
      for (const auto& m : all) messages.push_back({m.at("bytes"), m.at("passes"), m.at("ready_s"), m.at("seconds")});
      return messages;
    };
    p = {j.at("what"),       j.at("device"),          j.at("ranks"),         j.at("step_s"),
         j.at("backward_s"), j.at("measured_step_s"), list(j.at("buckets")), list(j.at("others"))};
  } catch (const nlohmann::json::exception& e) {
    fail(Kind::format, cat(file, ": not a file that evergrad bench --trace wrote: ", e.what()));
  }
  const auto number = [](double x) { return std::isfinite(x) && x >= 0.0; };
  bool good = p.ranks >= 1 && number(p.step) && p.step > 0.0 && number(p.backward) && p.backward <= p.step &&
              number(p.measured) && !p.buckets.empty();
  for (const auto* all : {&p.buckets, &p.others})
    for (const Message& m : *all)
      good = good && number(m.bytes) && number(m.ready) && number(m.seconds) && (m.passes == 1 || m.passes == 2);
  check(good, Kind::format, [&] {
    return cat(file, ": its profile of ", p.ranks, " ranks, a step of ", p.step, " s with ", p.backward,
               " s of backward and ", p.buckets.size(), " buckets cannot be; trace again");
  });
  return p;
}

}  // namespace eg
