// data/loader.cpp - a ring of batches: workers take tickets in order, fill the ticket's slot, and the consumer walks
// the slots in the same order. A slot is refilled only after the consumer has moved past it, so the queue is bounded.
#include "data/loader.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "engine/error.h"
#include "engine/rng.h"

namespace eg {

void AlignedBytes::resize(std::size_t bytes) {
  if (bytes > room_) {
    storage_ = std::make_unique<std::uint8_t[]>(bytes + 63);
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.get());
    data_ = storage_.get() + (63 - (address + 63) % 64);
    room_ = bytes;
  }
  size_ = bytes;
}

namespace {

void check_config(const SampleSet& samples, const LoaderConfig& c) {
  check_format(c.format);
  check_augment(c.augment, c.format);
  check(samples.size() > 0, Kind::usage, [] {
    return std::string(
        "a loader needs at least one image; the task's sample set is empty (raise the limits, or lower "
        "the validation share)");
  });
  check(samples.indices.size() == samples.labels.size(), Kind::usage, [&] {
    return cat("a sample set has ", samples.indices.size(), " indices but ", samples.labels.size(), " labels");
  });
  check(samples.size() < std::int64_t(1) << 31, Kind::usage,
        [&] { return cat("a task of ", samples.size(), " images is beyond 2^31; set a train limit"); });
  check(c.batch >= 1 && c.epochs >= 0 && c.workers >= 0 && c.workers <= 256 && c.prefetch >= 1, Kind::usage, [&] {
    return cat("loader: batch ", c.batch, ", epochs ", c.epochs, ", workers ", c.workers, ", prefetch ", c.prefetch,
               "; needed: batch >= 1, epochs >= 0, workers in 0..256, prefetch >= 1");
  });
  check(c.ranks >= 1 && c.rank >= 0 && c.rank < c.ranks, Kind::usage,
        [&] { return cat("loader: rank ", c.rank, " of ", c.ranks, " ranks"); });
  if (!c.augment.mixes()) return;
  for (const std::int32_t label : samples.labels)
    check(label >= 0 && label < c.soft_classes, Kind::usage, [&] {
      return cat("mixup and CutMix need soft labels: label ", label, " does not fit rows of ", c.soft_classes);
    });
}

}  // namespace

struct Loader::State {
  using Order = std::shared_ptr<const std::vector<std::uint32_t>>;
  struct Slot {
    Batch batch;
    std::exception_ptr error;
    std::int64_t ticket = -1;  // whose batch this is, once ready
  };
  struct Scratch {
    std::vector<std::uint8_t> bytes, image, partner;
  };

  State(std::shared_ptr<const Dataset> source, SampleSet set, const Transform& t, const LoaderConfig& c)
      : data(std::move(source)), samples(std::move(set)), config(c) {
    check_config(samples, config);
    transform = PreparedTransform(t, config.format);
    batches = (samples.size() + config.batch - 1) / config.batch;
    // One slot more than is prefetched: the one that the consumer holds.
    slots.resize(config.workers ? std::size_t(config.prefetch) + 1 : 1);
  }
  ~State() { stop(); }

  std::int64_t last_ticket() const { return config.epochs ? config.epochs * batches : INT64_MAX; }

  /// The order of an epoch; the two latest are kept, since workers straddle an epoch's end.
  Order order_of(std::int64_t epoch) {
    const std::lock_guard lock(order_mutex);
    for (const auto& [e, order] : orders)
      if (e == epoch && order) return order;
    auto order = std::make_shared<std::vector<std::uint32_t>>(samples.indices.size());
    std::iota(order->begin(), order->end(), 0u);
    if (config.shuffle) {
      // The epoch shifts the seed by an odd constant; task numbers fill the counter word.
      const std::uint64_t seed = config.seed + std::uint64_t(epoch) * 0x9e3779b97f4a7c15u;
      eg::shuffle(order->begin(), order->size(), key(seed, "loader/order", "epoch", config.task));
    }
    orders[std::size_t(epoch % 2)] = {epoch, order};
    return order;
  }

  /// How much of the task has passed when this sample is seen. The partner of a mix counts as the sample it is for.
  double progress_at(std::uint64_t sample) const {
    const auto number = double(sample & ((std::uint64_t(1) << 48) - 1));
    return config.shift_samples > 0 ? std::min(1.0, number / double(config.shift_samples)) : 1.0;
  }

  void load(std::int64_t position, std::int64_t epoch_sample, std::uint8_t* out, Crop* crop, Scratch& scratch) const {
    const std::int64_t index = samples.indices[std::size_t(position)];
    data->image(samples.split, index, config.format, out);
    const auto sample = std::uint64_t(epoch_sample);
    transform.apply(out, std::uint64_t(index) * 2 + (samples.split == Split::test), scratch.bytes, progress_at(sample));
    randaugment(config.augment, config.seed, config.task, sample, config.format, out, scratch.bytes);
    if (crop) *crop = draw_crop(config.augment, config.seed, config.task, sample);
  }

  /// The partner is any sample of the task, drawn by the sample's own number: not "the next in the batch", which would
  /// depend on the batch size and the rank.
  void mix_into(Batch& b, std::int64_t i, std::int64_t position, Scratch& scratch) const {
    const std::uint64_t sample = b.first_sample + std::uint64_t(i);
    const Mix mix = draw_mix(config.augment, config.seed, config.task, sample, config.format);
    std::uint8_t* image = b.images.data() + i * config.format.bytes();
    const std::size_t bytes = std::size_t(config.format.bytes());
    scratch.image.assign(image, image + bytes);
    const Crop ours_crop = draw_crop(config.augment, config.seed, config.task, sample);
    apply_crop(ours_crop, config.format, scratch.image.data(), image);
    const auto other = std::int64_t(mix.partner * double(samples.size()));
    scratch.image.resize(bytes);
    scratch.partner.resize(bytes);
    // Sample numbers from the top of the range: draws of the partner's image never meet those of an ordinary sample.
    const std::uint64_t partner_sample = sample ^ (std::uint64_t(1) << 48);
    Crop crop{};
    load(other, std::int64_t(partner_sample), scratch.image.data(), &crop, scratch);
    apply_crop(crop, config.format, scratch.image.data(), scratch.partner.data());
    apply_mix(mix, config.format, image, scratch.partner.data());
    float* row = b.soft_labels.data() + i * config.soft_classes;
    std::fill(row, row + config.soft_classes, 0.0f);
    const std::int32_t theirs = samples.labels[std::size_t(other)], ours = samples.labels[std::size_t(position)];
    row[ours] += float(mix.label_weight);
    row[theirs] += float(1.0 - mix.label_weight);
    b.labels[std::size_t(i)] = mix.label_weight >= 0.5 ? ours : theirs;
  }

  void fill(std::int64_t ticket, Batch& b, Scratch& scratch) {
    static std::atomic<std::uint64_t> fillings{0};
    b.serial = ++fillings;
    b.epoch = ticket / batches;
    b.index = ticket % batches;
    const std::int64_t begin = b.index * config.batch;
    b.global_count = std::min(config.batch, samples.size() - begin);
    const std::int64_t first = begin + b.global_count * config.rank / config.ranks;
    const std::int64_t last = begin + b.global_count * (config.rank + 1) / config.ranks;
    b.count = last - first, b.ranks = config.ranks;
    b.channels = config.format.channels;
    b.size = config.format.size;
    b.first_sample = std::uint64_t(b.epoch) * std::uint64_t(samples.size()) + std::uint64_t(first);
    const auto n = std::size_t(b.count);
    b.images.resize(n * std::size_t(config.format.bytes()));
    b.labels.resize(n);
    b.positions.resize(n);
    const bool mixes = config.augment.mixes();
    b.crop.resize(config.augment.geometric() && !mixes ? 3 * n : 0);
    b.soft_labels.resize(mixes ? n * std::size_t(config.soft_classes) : 0);
    const Order order = order_of(b.epoch);
    for (std::int64_t i = 0; i < b.count; ++i) {
      const std::int64_t position = (*order)[std::size_t(first + i)];
      b.positions[std::size_t(i)] = position;
      b.labels[std::size_t(i)] = samples.labels[std::size_t(position)];
      Crop crop{};
      load(position, std::int64_t(b.first_sample) + i, b.images.data() + i * config.format.bytes(),
           b.crop.empty() ? nullptr : &crop, scratch);
      if (!b.crop.empty()) std::copy(crop.begin(), crop.end(), b.crop.begin() + 3 * i);
      if (mixes) mix_into(b, i, position, scratch);
    }
  }

  void fill_slot(std::int64_t ticket, Slot& slot, Scratch& scratch) {
    slot.error = nullptr;
    try {
      fill(ticket, slot.batch, scratch);
    } catch (...) { slot.error = std::current_exception(); }
  }

  void work() {
    Scratch scratch;
    std::unique_lock lock(mutex);
    for (;;) {
      // consumed is the ticket that the consumer holds or waits for; its slot and the following `prefetch` are ours.
      can_fill.wait(lock, [&] {
        return stopping || (next_ticket < last_ticket() && next_ticket < consumed + std::int64_t(slots.size()));
      });
      if (stopping) return;
      const std::int64_t ticket = next_ticket++;
      Slot& slot = slots[std::size_t(ticket) % slots.size()];
      slot.ticket = -1;
      lock.unlock();
      fill_slot(ticket, slot, scratch);
      lock.lock();
      slot.ticket = ticket;
      ready.notify_all();
    }
  }

  void start() {
    stopping = false;
    try {
      for (int i = 0; i < config.workers; ++i) threads.emplace_back([this] { work(); });
    } catch (const std::system_error& e) {
      stop();
      fail(Kind::memory, cat("the loader could not start ", config.workers, " background threads (", e.what(),
                             "); ask for fewer workers, or 0"));
    }
  }
  void stop() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    can_fill.notify_all();
    for (std::thread& t : threads) t.join();
    threads.clear();
  }

  /// Waits for the slot of `consumed`.
  Slot& wait_for_slot() {
    const auto start = std::chrono::steady_clock::now();
    Slot& slot = slots[std::size_t(consumed) % slots.size()];
    if (threads.empty() && !config.workers) {
      fill_slot(consumed, slot, own);
    } else {
      std::unique_lock lock(mutex);
      ready.wait(lock, [&] { return slot.ticket == consumed; });
    }
    waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return slot;
  }

  void restart(std::int64_t ticket) {
    stop();
    next_ticket = consumed = ticket;
    for (Slot& slot : slots) slot.ticket = -1;
    failed = holding = pending_end = false;
    if (config.workers) start();
  }

  const Batch* next() {
    if (failed) return nullptr;
    if (holding) {
      {
        const std::lock_guard lock(mutex);
        ++consumed;
      }
      can_fill.notify_all();
      holding = false;
    }
    if (consumed >= last_ticket()) return nullptr;
    if (pending_end && consumed % batches == 0) {  // an epoch's end is announced once
      pending_end = false;
      return nullptr;
    }
    Slot& slot = wait_for_slot();
    if (slot.error) {
      failed = true;
      std::rethrow_exception(slot.error);
    }
    holding = true;
    pending_end = true;
    return &slot.batch;
  }

  /// Behind an epoch's last batch next() returns null once, and then the batch that is returned here.
  const Batch* ahead() {
    if (!holding || config.workers == 0) return nullptr;
    const std::lock_guard lock(mutex);
    const std::int64_t ticket = consumed + 1;
    const Slot& slot = slots[std::size_t(ticket) % slots.size()];
    return ticket < last_ticket() && slot.ticket == ticket && !slot.error ? &slot.batch : nullptr;
  }

  std::shared_ptr<const Dataset> data;
  SampleSet samples;
  LoaderConfig config;
  PreparedTransform transform;
  std::int64_t batches = 0;
  std::vector<Slot> slots;
  Scratch own;
  std::mutex mutex, order_mutex;
  std::condition_variable can_fill, ready;
  std::array<std::pair<std::int64_t, Order>, 2> orders{{{-1, nullptr}, {-1, nullptr}}};
  std::int64_t next_ticket = 0, consumed = 0;  // guarded by mutex
  bool stopping = false;                       // guarded by mutex
  // The consumer's own:
  bool holding = false, failed = false, pending_end = false;
  double waited = 0.0;
  std::vector<std::thread> threads;
};

Loader::Loader(std::shared_ptr<const Dataset> data, SampleSet samples, const Transform& transform,
               const LoaderConfig& config)
    : state_(std::make_unique<State>(std::move(data), std::move(samples), transform, config)) {
  state_->restart(0);
}
Loader::~Loader() = default;

const Batch* Loader::next() { return state_->next(); }
const Batch* Loader::ahead() { return state_->ahead(); }

void Loader::seek(std::int64_t epoch, std::int64_t batch) {
  State& s = *state_;
  check(epoch >= 0 && epoch < INT64_MAX / s.batches - 1 && batch >= 0 && batch <= s.batches, Kind::usage, [&] {
    return cat("the loader cannot start at epoch ", epoch, ", batch ", batch, "; an epoch has ", s.batches, " batches");
  });
  s.restart(epoch * s.batches + batch);
  s.pending_end = batch == s.batches;
}

std::int64_t Loader::batches_per_epoch() const { return state_->batches; }
std::int64_t Loader::samples() const { return state_->samples.size(); }
const LoaderConfig& Loader::config() const { return state_->config; }
double Loader::wait_seconds() const { return state_->waited; }
std::int64_t Loader::bytes() const {
  const LoaderConfig& c = state_->config;
  const std::int64_t per_image = c.format.bytes() + 24 + 4 * c.soft_classes;
  return std::int64_t(state_->slots.size()) * ((c.batch + c.ranks - 1) / c.ranks) * per_image;
}

}  // namespace eg
