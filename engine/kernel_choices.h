// engine/kernel_choices.h - which of several implementations of a kernel a device takes for one call.
//
// A table entry may have more than one implementation: tiles of two sizes, one kernel or two, a vendor's library. Which is
// the fastest depends on card and shape, so it is measured, once for every distinct call, before that call is made for the
// first time. Implementations differ in rounding: a run gives the same bits again only with the same choices. That is why
// every choice is handed to a listener before it is first used (the run writes it down), and can be pinned (a resumed run).
#pragma once
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/device.h"

namespace eg {

enum class KernelMode : std::uint8_t {
  hand,      // the rule in the wrappers: our own kernels, chosen by shape alone
  library,   // a library's implementation where there is one, else as `hand`
  automatic  // the fastest of all, measured on this device
};
/// "hand", "library" or "auto". Throws Error{usage} on anything else.
KernelMode parse_kernel_mode(std::string_view text);
std::string to_string(KernelMode mode);

struct KernelImplementation {
  std::string name;
  bool library = false;
  bool watched = false;  // taken only as long as every gradient of the run was finite; see trust_watched()
};

/// One implementation as the measurement saw it.
struct KernelTime {
  std::string name;
  double milliseconds = 0.0;
  std::string refused;  // why it was left out; empty: it took part
};

struct KernelChoice {
  std::string call;               // "matmul 50432x3072x768 ...": everything that the choice may depend on
  std::string chosen;             // name of an implementation
  std::string origin;             // "measured", "cache", "this run", "rule"
  std::vector<KernelTime> times;  // of a measurement; else empty
  bool watched = false;           // the chosen one is, and `instead` takes its place when it is not trusted
  std::string instead;
};

/// How the implementations of one call are tried: with the call's own inputs, since arithmetic on zeros is faster than on
/// numbers, but into memory of the trial.
class KernelTrial {
 public:
  virtual ~KernelTrial() = default;
  /// Puts what the outputs held before the call into the trial's memory.
  virtual void prepare() = 0;
  /// Enqueues one call.
  virtual void run(std::size_t implementation) = 0;
  /// Waits, and returns a sample of every output.
  virtual std::vector<std::vector<float>> results() = 0;
  virtual Stream stream() const = 0;
};

/// The choices of one device.
class KernelChoices {
 public:
  /// Milliseconds of one `work`, which enqueues on the stream, by the device's own clock.
  using Clock = std::function<double(const std::string& call, const std::string& name, Stream stream,
                                     const std::function<void()>& work)>;
  using MakeTrial = std::function<std::unique_ptr<KernelTrial>()>;
  struct Start {
    KernelMode mode = KernelMode::hand;
    std::filesystem::path cache;  // folder of measurements of earlier runs; empty: none
    bool measures = true;         // false: `automatic` takes what is known from earlier runs, and else the rule
    std::optional<std::map<std::string, std::string>> known;  // call -> implementation, instead of what the cache holds
    std::vector<KernelChoice> pinned;                         // taken whatever the mode is
    std::function<void(const KernelChoice&)> chosen;          // called before the choice is used for the first time
    std::function<void(const std::string& text)> warn;        // empty: standard error
  };

  /// What the backend says once: the names of all implementations in this build, what the measurements hold for (card,
  /// driver, library and evergrad's version), and a clock; without one nothing can be measured.
  void describe(std::vector<std::string> names, std::string identity, Clock clock);
  bool can_measure() const { return bool(clock_); }
  const std::string& identity() const { return identity_; }
  const std::vector<std::string>& names() const { return names_; }

  /// Forgets all choices and begins anew. Throws Error{usage} that names a pinned implementation which this build lacks, and
  /// for `automatic` where nothing can be measured.
  void start(Start start);
  /// False: every wrapper follows its own rule, and need not ask.
  bool active() const { return active_.load(std::memory_order_relaxed); }
  /// Index of the implementation to take; the first one is what `hand` takes. `recording`: this call is being recorded, so
  /// that nothing can be measured now. Throws Error{usage} when a pinned implementation is not among them.
  std::size_t choose(const std::string& call, std::span<const KernelImplementation> all, bool recording,
                     const MakeTrial& trial);
  /// False: watched implementations are not taken from here on, whatever was or is chosen, and the first one of a call takes
  /// their place. The run says true while none of its gradients was not finite, which its checkpoint knows: a resumed run
  /// takes the same implementations at the same steps. Returns the choices made so far that this changes.
  std::vector<KernelChoice> trust_watched(bool yes);
  /// All choices so far, in the order in which they were made.
  std::vector<KernelChoice> made() const;

 private:
  KernelChoice decide(const std::string& call, std::span<const KernelImplementation> all, bool recording,
                      const MakeTrial& trial);
  KernelChoice measure(const std::string& call, std::span<const KernelImplementation> all, const MakeTrial& trial);
  bool usable(const KernelImplementation& i) const { return trusts_watched_ || !i.watched; }
  void warn(const std::string& text) const;

  std::vector<std::string> names_;
  std::string identity_;
  Clock clock_;
  Start start_;
  std::atomic<bool> active_ = false;
  bool trusts_watched_ = true;
  mutable std::mutex mutex_;
  std::map<std::string, std::size_t> index_;  // call -> place in made_
  std::vector<KernelChoice> made_;
  std::map<std::string, std::string> cached_;
  std::map<std::string, std::size_t> pinned_;
};

/// Those of a device; a device without alternatives has none to make.
KernelChoices& kernel_choices(Device device);

}  // namespace eg
