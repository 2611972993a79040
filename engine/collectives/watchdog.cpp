// engine/collectives/watchdog.cpp - see watchdog.h.
#include "engine/collectives/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <exception>
#include <iostream>

#include "engine/collectives/wait_time.h"
#include "engine/error.h"
#include "engine/file.h"
#include "engine/log.h"

namespace eg {
namespace {

constexpr std::size_t kStepTimes = 63;

/// A heartbeat comes 20 times per deadline, but neither busily nor so rarely that a person wonders.
double interval(double deadline) { return std::clamp(deadline / 20, 0.02, 2.0); }
/// The last part of a deadline: after its verdict a rank gives the others this time to write down theirs.
double farewell(double deadline) { return std::clamp(deadline / 8, 0.05, 5.0); }

}  // namespace

Watchdog::Watchdog(std::unique_ptr<Store> line, WatchOptions options)
    : line_(std::move(line)), options_(std::move(options)), heard_(line_->rank(), line_->size(), 0.0) {
  check(options_.step_deadline >= 0.0, Kind::usage,
        [&] { return cat("--step-deadline is ", options_.step_deadline, "; seconds, or 0 for the default"); });
  mine_.who = cat("pid ", ::getpid(), " on host ", host_name());
  line_->set_patience(std::max(0.1, deadline() / 2));
  say(false);
  thread_ = std::thread([this] { watch(); });
}

void Watchdog::stop_watching() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Watchdog::~Watchdog() {
  stop_watching();
  if (std::uncaught_exceptions() > 0) {
    const std::string why = cat("rank ", line_->rank(), " (", mine_.who, ") ended with an error; see its output");
    line_->fail(why);
    write_recorder(why);
    return;
  }
  try {
    if (!over_) say(true);
  } catch (const std::exception&) {  // the store has gone; whoever still waits for this rank knows that too
  }
}

double Watchdog::now() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

double Watchdog::deadline() const {
  if (options_.step_deadline > 0.0) return options_.step_deadline;
  const std::lock_guard lock(mutex_);
  if (step_times_.empty()) return 60.0;
  std::vector<double> sorted(step_times_.begin(), step_times_.end());
  std::nth_element(sorted.begin(), sorted.begin() + std::ptrdiff_t(sorted.size() / 2), sorted.end());
  return std::max(60.0, 20.0 * sorted[sorted.size() / 2]);
}

void Watchdog::step() {
  const std::lock_guard lock(mutex_);
  const double t = now();
  if (last_step_ >= 0.0) step_times_.push_back(t - last_step_);
  if (step_times_.size() > kStepTimes) step_times_.pop_front();
  last_step_ = t;
  busy_.clear();
}

void Watchdog::busy(const std::string& what) {
  const std::lock_guard lock(mutex_);
  busy_ = what;
}

void Watchdog::write_into(const std::filesystem::path& run_folder) {
  const std::lock_guard lock(mutex_);
  options_.run_folder = run_folder;
}

void Watchdog::failed(const std::string& why) noexcept {
  try {
    stop_watching();  // unless it is ending this process already
    if (over_ || options_.run_folder.empty()) return;
    over_ = true;
    const std::string text = cat("rank ", line_->rank(), " (", mine_.who, ") ended with an error: ", why);
    line_->set_patience(farewell(deadline()));
    line_->fail(text);
    write_recorder(text);
    wait_for_others();
  } catch (const std::exception&) {  // the store has gone; this rank ends all the same
  }
}

void Watchdog::capture_begins() {
  captured_ = 0;
  capturing_ = true;
}

std::uint64_t Watchdog::capture_ends() {
  capturing_ = false;
  return captured_;
}

void Watchdog::replayed(std::uint64_t collectives) {
  if (collectives == 0) return;
  const std::uint64_t sequence = recorder_.enqueue("step graph", 0, collectives);
  if (!asynchronous()) return recorder_.complete(sequence);
  const std::lock_guard lock(mutex_);
  on_device_.push_back({device_entered_ += collectives, sequence});
}

std::uint64_t Watchdog::enter(const std::string& name, std::int64_t bytes, bool on_device) {
  if (on_device && capturing_) return ++captured_, 0;
  const std::uint64_t sequence = recorder_.enqueue(name, bytes);
  if (on_device && asynchronous()) {
    const std::lock_guard lock(mutex_);
    on_device_.push_back({++device_entered_, sequence});
  }
  return sequence;
}

void Watchdog::done(std::uint64_t sequence, bool on_device) {
  if (sequence > 0 && !(on_device && asynchronous())) recorder_.complete(sequence);
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_ && !over_) {
    lock.unlock();
    const double limit = deadline();
    try {
      look();
    } catch (const std::exception& e) {  // the store does not answer: rank 0 is at fault, and the text says so
      end(e.what());
    }
    lock.lock();
    if (!over_) changed_.wait_for(lock, std::chrono::duration<double>(interval(limit)), [&] { return stop_; });
  }
}

void Watchdog::look() {
  const double limit = deadline(), before = last_look_, began = now();
  line_->set_patience(std::max(0.1, limit / 2));
  if (asynchronous()) {
    const std::uint64_t complete = options_.device_progress();
    const std::lock_guard lock(mutex_);
    for (; !on_device_.empty() && on_device_.front().count <= complete; on_device_.pop_front())
      recorder_.complete(on_device_.front().sequence);
  }
  say(false);
  for (const auto& [key, text] : line_->list("beat/")) {
    const int rank = std::atoi(key.c_str() + 5);
    if (const auto beat = beat_from(text); beat && rank >= 0 && rank < line_->size()) heard_.hear(rank, *beat, now());
  }
  last_look_ = now();
  auto why = line_->trouble();
  if (!why) why = heard_.verdict(limit, now());
  if (!why) return;
  if (began - before > limit / 2)
    *why =
        cat("this process itself did not run for ", std::int64_t(began - before), " s (stopped?); meanwhile: ", *why);
  end(*why);
}

void Watchdog::say(bool left) {
  ++mine_.number, mine_.left = left, mine_.position = recorder_.position();
  {
    const std::lock_guard lock(mutex_);
    mine_.busy = busy_;
  }
  line_->set(cat("beat/", line_->rank()), to_text(mine_));
}

void Watchdog::end(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;  // this rank is leaving; what it saw may be others who leave too
    over_ = true;
  }
  if (options_.on_failure) return options_.on_failure(why);
  line_->set_patience(farewell(deadline()));
  line_->fail(why);
  write_recorder(why);
  wait_for_others();
  ::usleep(200'000);  // a rank that failed by itself ends first: its exit code is the launcher's
  ::_exit(kLostRankExitCode);
}

void Watchdog::wait_for_others() {
  try {
    line_->set(cat("written/", line_->rank()), "");
    for (const Deadline limit = within(farewell(deadline())); !limit.over(); ::usleep(10'000)) {
      auto done = line_->list("written/");
      for (const auto& [key, text] : line_->list("gone/")) done["written" + key.substr(4)];
      if (int(done.size()) >= line_->size()) return;
    }
  } catch (const std::exception&) {  // rank 0 was faster, or is the one that failed
  }
}

void Watchdog::write_recorder(const std::string& why) noexcept {
  try {
    const std::string name = cat("flight-rank-", line_->rank(), ".json");
    std::string text =
        cat("evergrad: rank ", line_->rank(), ": ", why, "\nevergrad: rank ", line_->rank(), " (", mine_.who,
            ") stops; start the same command again with --resume. Its last collectives:\n", recorder_.text());
    std::cerr << text << std::flush;
    std::filesystem::path folder;
    {
      const std::lock_guard lock(mutex_);
      folder = options_.run_folder;
    }
    if (folder.empty()) return;
    LogLine head("flight");
    head.add("rank", line_->rank()).add("size", line_->size()).add("who", mine_.who).add("why", why);
    head.add("deadline_s", deadline())
        .add("time", std::int64_t(std::time(nullptr)))
        .raw("collectives", recorder_.json());
    write_file(folder / name, head.text() + "\n");
  } catch (const std::exception& e) {  // a full disk must not keep this process alive
    std::cerr << "evergrad: rank " << line_->rank() << ": the flight recorder was not written: " << e.what()
              << std::endl;
  }
}

void Watchdog::explain() noexcept {
  // A little longer than it takes to hear of a silent rank's end, and shorter than a person's patience.
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(2 * interval(deadline()) + 0.2);
  for (; std::chrono::steady_clock::now() < until; ::usleep(5'000)) {
    {
      const std::lock_guard lock(mutex_);
      if (!over_) continue;
    }
    if (!options_.on_failure) ::sleep(30);  // the other thread ends the process
    return;
  }
}

// ---- the decorator --------------------------------------------------------------------------------------------------

class WatchedCollectives : public Collectives {
 public:
  WatchedCollectives(std::unique_ptr<Collectives> inner, Watchdog& dog) : inner_(std::move(inner)), dog_(dog) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  bool deterministic() const override { return inner_->deterministic(); }
  std::string name() const override { return inner_->name(); }

  void all_reduce(void* data, std::int64_t count, DType t, Stream s) override {
    run(cat("all_reduce ", t), bytes(count, t), true, [&] { inner_->all_reduce(data, count, t, s); });
  }
  void reduce_scatter(void* data, std::int64_t count, DType t, Stream s) override {
    run(cat("reduce_scatter ", t), bytes(count, t), true, [&] { inner_->reduce_scatter(data, count, t, s); });
  }
  void all_gather(void* data, std::int64_t count, DType t, Stream s) override {
    run(cat("all_gather ", t), bytes(count, t), true, [&] { inner_->all_gather(data, count, t, s); });
  }
  void broadcast(void* data, std::int64_t n, int root, Stream s) override {
    run(cat("broadcast from ", root), n, true, [&] { inner_->broadcast(data, n, root, s); });
  }
  void barrier() override {
    run("barrier", 0, false, [&] { inner_->barrier(); });
  }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    std::vector<std::string> all;
    run("all_gather_bytes", 0, false,
        [&] { all = inner_->all_gather_bytes(mine); });  // lengths may differ between ranks
    return all;
  }
  void sum_on_host(std::span<double> values) override {
    run("sum_on_host", std::int64_t(values.size_bytes()), false, [&] { inner_->sum_on_host(values); });
  }
  std::int64_t bytes_sent() const override { return inner_->bytes_sent(); }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }
  Watchdog& watchdog() { return dog_; }
  double seconds() const { return std::chrono::duration<double>(spent_).count(); }

 private:
  static std::int64_t bytes(std::int64_t count, DType t) { return count * std::int64_t(size_of(t)); }
  template <class Body>
  void run(const std::string& name, std::int64_t n, bool on_device, Body&& body) {
    const std::uint64_t sequence = dog_.enter(name, n, on_device);
    const auto start = std::chrono::steady_clock::now();
    try {
      body();
    } catch (...) {
      dog_.explain();
      throw;
    }
    dog_.done(sequence, on_device);
    spent_ += std::chrono::steady_clock::now() - start;
  }
  const std::unique_ptr<Collectives> inner_;
  Watchdog& dog_;
  std::chrono::steady_clock::duration spent_{};
};

double seconds_in_collectives(const Collectives& ranks) {
  const auto* const watched = dynamic_cast<const WatchedCollectives*>(&ranks);
  return watched ? watched->seconds() : 0.0;
}

std::unique_ptr<Collectives> watched(std::unique_ptr<Collectives> inner, Watchdog& watchdog) {
  return std::make_unique<WatchedCollectives>(std::move(inner), watchdog);
}

Watchdog* watchdog_of(Collectives& ranks) {
  auto* const found = dynamic_cast<WatchedCollectives*>(&ranks);
  return found ? &found->watchdog() : nullptr;
}

}  // namespace eg
