// apps/bench/step_trace.h - what the timelines of all ranks say: a picture, a table, and a profile for the scaling model.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "apps/bench/scaling.h"
#include "apps/bench/timeline.h"

namespace eg {

/// One step of one rank, in seconds.
struct StepTimes {
  double step = 0.0, data = 0.0, forward = 0.0, backward = 0.0, update = 0.0;  // update: with the methods' observations
  double communication = 0.0;                                                  // while any collective is under way
  double exposed = 0.0;                                                        // of it, while no part of the step is
  double weights = 0.0, weights_exposed = 0.0;  // the same of the gathers of weights alone (--zero 1)
};

/// The timelines of all ranks over the same steps, and the layout of the gradient that they share.
struct StepTrace {
  std::vector<std::vector<Span>> ranks;
  std::vector<GradientBuckets::Bucket> buckets;
  int depth = 0;  // blocks; group `depth` is what lies outside of them
  std::int64_t element_bytes = 4;

  int steps() const;
  StepTimes times(int rank, int step) const;
  /// Of a rank's steps, each column its own median.
  StepTimes median(int rank) const;
  /// Buckets with the backward time at which they are ready, and what the quickest rank needed for each sum: the others have
  /// waited for it.
  StepProfile profile() const;
  /// Chrome's trace-event format (chrome://tracing, ui.perfetto.dev): a process per rank; rows for steps, parts (blocks within
  /// backward, waits for weights within forward), observations and sums.
  nlohmann::json chrome() const;
  /// "bucket 1: blocks 9, 8"
  std::string name_of_bucket(int bucket) const;
};

/// Spans as text, to send to another rank.
std::string spans_to_text(const std::deque<Span>& spans);
std::vector<Span> spans_from_text(const std::string& text);

}  // namespace eg
