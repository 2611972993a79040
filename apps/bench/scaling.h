// apps/bench/scaling.h - what a training step will take on more ranks than are here: a model of the sums, bucket by bucket.
//
// Each rank keeps its number of images (weak scaling), so that its arithmetic stays what it was and only sums are added. A sum
// costs latency per message and time per byte (alpha and beta: Thakur, Rabenseifner and Gropp 2005), inside a node and between
// nodes. A bucket is sent when backward has made it and the link has done the one before; what is still under way when backward
// ends delays the update. docs/distributed.md, "Scaling", says what is left out.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace eg {

/// A rank's way to others, each direction.
struct Link {
  double latency = 0.0;  // seconds a message takes that holds nothing
  double bytes_per_second = 0.0;
};

/// What is assumed where nothing is measured or typed: a line through published all-reduce rates of eight H200 over NVLink, by
/// bytes of data (ml-engineering's network notes: 61 GB/s at 4 MiB, 126 at 16, 158 at 32, 249 at 256), and one 400 Gb/s adapter
/// per GPU, whose latency is a guess.
inline constexpr Link kNvlink{4e-6, 460e9}, kAdapter{10e-6, 50e9};

/// How n ranks add up B bytes each.
enum class SumBy : std::uint8_t {
  deal,  // everybody sends everybody a part, adds up its own, sends the sum back: evergrad's sums in ascending order
  ring,  // inside a node as deal; between nodes, each rank of a node in a ring of its own, of its part
  tree   // inside a node as deal; between nodes two binary trees at once (Sanders, Speck and Traeff 2009)
};
std::string to_string(SumBy by);

struct Cluster {
  int node = 8;  // ranks on one
  Link inside, between;
};

/// Seconds in which `ranks` of them sum `bytes` (passes 2) or gather them (passes 1). Nodes are full when there are several.
double seconds_of(double bytes, int passes, int ranks, SumBy by, const Cluster& cluster);

/// One collective: with `ready`, a bucket of the gradient, which is there so many seconds of backward after its beginning.
struct Message {
  double bytes = 0.0;
  int passes = 2;
  double ready = 0.0;
  double seconds = 0.0;  // measured; 0: not
};

/// A step as one rank computes it, and what it has to exchange.
struct StepProfile {
  std::string what, device;  // for people: model, batch, method
  int ranks = 1;             // with which it was measured
  double step = 0.0;         // seconds on one rank, everything but communication
  double backward = 0.0;     // of them
  double measured = 0.0;     // seconds of the step on those ranks, communication included; 0: not measured
  std::vector<Message> buckets, others;
};
nlohmann::json to_json(const StepProfile& p);
/// Throws Error{format} that names `file` and what it lacks.
StepProfile profile_from_json(const nlohmann::json& trace, const std::string& file);

struct Prediction {
  double communication = 0.0;    // seconds a step
  double exposed = 0.0;          // of them, while nothing else runs
  double efficiency = 0.0;       // the step of one rank over the step of so many
  double without_overlap = 0.0;  // the same, where every bucket is waited for when it is ready
};
Prediction predict(const StepProfile& p, int ranks, SumBy by, const Cluster& cluster);

/// The link that explains the measured collectives best, by least squares of relative errors; worst: the largest that is left.
/// Throws Error{usage} when the profile holds none.
Link fit_link(const StepProfile& p, double* worst);

}  // namespace eg
