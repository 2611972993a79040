// apps/bench/timeline.cpp - see timeline.h.
#include "apps/bench/timeline.h"

#include <tuple>
#include <utility>

#include "engine/error.h"

namespace eg {

Timeline::Timeline(Device device) : device_(device) {}

Timeline::~Timeline() {
  forget_events();
  runtime(device_).destroy_event(origin_);
}

void Timeline::start() {
  forget_events();
  spans_.clear(), parts_ = {}, step_ = nullptr, steps_ = 0;
  DeviceRuntime& device = runtime(device_);
  if (!origin_.handle) origin_ = device.create_timed_event();
  device.synchronize({});
  const auto before = std::chrono::steady_clock::now();
  device.record(origin_, {});
  device.synchronize({});
  start_ = before + (std::chrono::steady_clock::now() - before) / 2;  // the event was reached somewhere in between
}

void Timeline::forget_events() {
  for (const Stamp& s : stamps_) runtime(device_).destroy_event(s.event);
  stamps_.clear();
}

const std::deque<Span>& Timeline::spans() {
  for (const Stamp& s : stamps_) *s.at = runtime(device_).seconds_between(origin_, s.event);
  forget_events();
  return spans_;
}

double Timeline::now() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

/// stream null: what is timed is the host itself.
void Timeline::stamp(double* at, const Stream* stream) {
  if (!stream) {
    *at = now();
    return;
  }
  stamps_.push_back({at, runtime(device_).create_timed_event()});
  runtime(device_).record(stamps_.back().event, *stream);
}

Span* Timeline::open(Span::Kind kind) {
  if (!step_ && kind != Span::Kind::step) return nullptr;
  Span& s = spans_.emplace_back();
  s.kind = kind, s.step = steps_, s.enqueued = now();
  return &s;
}

void Timeline::begin_step() {
  step_ = open(Span::Kind::step);
  stamp(&step_->begin, nullptr);
}

void Timeline::end_step() {
  stamp(&step_->end, nullptr);
  step_ = nullptr, ++steps_;
}

void Timeline::begin(StepPart part, Stream stream) {
  Span* const s = open(Span::Kind::part);
  parts_[std::size_t(part)] = s;
  if (!s) return;
  s->part = part;
  stamp(&s->begin, &stream);
}

void Timeline::end(StepPart part, int group, Stream stream) {
  Span* const s = std::exchange(parts_[std::size_t(part)], nullptr);
  if (!s) return;
  s->group = group;
  stamp(&s->end, &stream);
}

void Timeline::name_buckets(const std::vector<GradientBuckets::Bucket>& buckets, const Tensor& gradient,
                            const Tensor& weights) {
  buckets_ = buckets, gradient_ = gradient, weights_ = weights;
}

class TracedCollectives final : public Collectives {
 public:
  TracedCollectives(std::shared_ptr<Collectives> inner, Timeline& timeline)
      : inner_(std::move(inner)), timeline_(timeline) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  bool deterministic() const override { return inner_->deterministic(); }
  std::string name() const override { return inner_->name(); }

  void all_reduce(void* data, std::int64_t count, DType t, Stream s) override {
    Span* const span = enter("all_reduce", bytes(count, t), 2, &s);
    if (span) find_bucket(data, span);
    inner_->all_reduce(data, count, t, s);
    leave(span, &s);
  }
  void reduce_scatter(void* data, std::int64_t count, DType t, Stream s) override {
    Span* const span = enter("reduce_scatter", bytes(count, t), 1, &s);
    if (span) find_bucket(data, span);
    inner_->reduce_scatter(data, count, t, s);
    leave(span, &s);
  }
  void all_gather(void* data, std::int64_t count, DType t, Stream s) override {
    Span* const span = enter("all_gather", bytes(count, t), 1, &s);
    if (span) span->weights = place_of(data, timeline_.weights_).first;
    inner_->all_gather(data, count, t, s);
    leave(span, &s);
  }
  void broadcast(void* data, std::int64_t n, int root, Stream s) override {
    Span* const span = enter("broadcast", double(n), 1, &s);
    inner_->broadcast(data, n, root, s);
    leave(span, &s);
  }
  void barrier() override {
    Span* const span = enter("barrier", 0.0, 1, nullptr);
    inner_->barrier();
    leave(span, nullptr);
  }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    Span* const span = enter("all_gather_bytes", double(mine.size()) * size(), 1, nullptr);
    std::vector<std::string> all = inner_->all_gather_bytes(mine);
    leave(span, nullptr);
    return all;
  }
  void sum_on_host(std::span<double> values) override {
    Span* const span = enter("sum_on_host", double(values.size_bytes()) * size(), 1, nullptr);
    inner_->sum_on_host(values);
    leave(span, nullptr);
  }
  std::int64_t bytes_sent() const override { return inner_->bytes_sent(); }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }

 private:
  static double bytes(std::int64_t count, DType t) { return double(count) * double(size_of(t)); }
  Span* enter(const char* name, double bytes, int passes, const Stream* stream) {
    Span* const s = timeline_.open(Span::Kind::collective);
    if (!s) return nullptr;
    s->name = name, s->bytes = bytes, s->passes = passes;
    s->blocks = !stream || !stream->handle || timeline_.device_.is_host();  // nothing else runs on the main stream
    timeline_.stamp(&s->begin, stream);
    return s;
  }
  void leave(Span* s, const Stream* stream) {
    if (s) timeline_.stamp(&s->end, stream);
  }
  /// Bucket, and range of it, that begins to lie at `data` of `arena`; -1: none does.
  std::pair<int, int> place_of(const void* data, const Tensor& arena) const {
    const auto* const at = static_cast<const std::byte*>(data);
    const auto* const first = arena ? static_cast<const std::byte*>(arena.data()) : nullptr;
    if (!first || at < first || at >= first + arena.bytes()) return {-1, -1};
    const std::int64_t element = (at - first) / std::int64_t(size_of(arena.dtype()));
    for (std::size_t b = 0; b < timeline_.buckets_.size(); ++b) {
      const auto& ranges = timeline_.buckets_[b].ranges;
      for (std::size_t r = 0; r < ranges.size(); ++r)
        if (element >= ranges[r].begin && element < ranges[r].end) return {int(b), int(r)};
    }
    return {-1, -1};
  }
  void find_bucket(const void* data, Span* span) const {
    std::tie(span->bucket, span->range) = place_of(data, timeline_.gradient_);
  }
  const std::shared_ptr<Collectives> inner_;
  Timeline& timeline_;
};

std::shared_ptr<Collectives> Timeline::traced(std::shared_ptr<Collectives> inner) {
  return std::make_shared<TracedCollectives>(std::move(inner), *this);
}

}  // namespace eg
