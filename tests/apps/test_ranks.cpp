// tests/apps/test_ranks.cpp - several ranks in one process: the same training as one rank's, and the same on all of them.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "apps/distributed/gradient_buckets.h"
#include "apps/distributed/launch.h"
#include "apps/distributed/rank_files.h"
#include "engine/collectives/loopback.h"
#include "engine/file.h"
#include "tests/apps/tiny_trainer.h"
#include "tests/engine/temporary_folder.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kEpochs = 5;  // of 10 batches each, the last of them not full

/// In builds with sanitizers one method stands for all.
std::vector<const char*> some(std::vector<const char*> methods) {
  const char* const brief = std::getenv("EVERGRAD_SHORT_TESTS");
  if (brief && *brief) methods.resize(1);
  return methods;
}

TrainerConfig three_blocks(const std::string& method, Device device) {
  TrainerConfig c = tiny(method, device, 3);
  c.vit.drop_path = 0.1;
  return c;
}

struct MoreImages {
  std::shared_ptr<const Dataset> data = make_procedural({.classes = kClasses, .train_per_class = 19});
  Task task = whole_dataset(*data, kClasses);
  LoaderConfig config(bool training) const {
    LoaderConfig c;
    c.format = {3, 8};
    c.batch = 8, c.epochs = training ? kEpochs : 1, c.workers = 0, c.shuffle = training;
    if (training) c.augment = parse_augment("crop-flip", 8);
    return c;
  }
};

struct Trace {
  std::vector<double> losses, accuracies;
  std::string weights;                                               // bytes, at the end
  std::string state;                                                 // bytes of all that a checkpoint holds
  std::vector<std::pair<std::string, std::vector<double>>> tensors;  // the same as numbers
  std::size_t state_bytes = 0;
  std::int64_t sent = 0;  // bytes, in all steps
};

std::string bytes_of(const Tensor& t) { return {static_cast<const char*>(t.data()), t.bytes()}; }

/// What all ranks have of a divided tensor together, on each of them; other tensors as they are.
Tensor whole_of(const StateTensor& kept, Collectives& ranks) {
  if (!kept.part) return kept.tensor.to(kCpu);
  const Tensor own = compact_on_host(kept.tensor, *kept.part);
  const std::size_t width = size_of(own.dtype());
  std::string mine;
  for (std::size_t next = 0; const TensorPiece& p : kept.part->pieces) {
    mine += cat(p.begin, ' ', p.size, '\n') + bytes_of(own).substr(next, std::size_t(p.size) * width);
    next += std::size_t(p.size) * width;
  }
  Tensor whole = Tensor::zeros(kept.part->whole, own.dtype(), kCpu);
  std::vector<int> covered(std::size_t(whole.size()), 0);
  for (const std::string& theirs : ranks.all_gather_bytes(mine))
    for (std::size_t at = 0; at < theirs.size();) {
      std::size_t end = 0;
      const std::size_t begin = std::stoul(theirs.substr(at, 24), &end);
      const std::size_t size = std::stoul(theirs.substr(at + end + 1, 24));
      at = theirs.find('\n', at) + 1;
      std::memcpy(static_cast<char*>(whole.data()) + begin * width, theirs.data() + at, size * width);
      for (std::size_t i = begin; i < begin + size; ++i) ++covered[i];
      at += size * width;
    }
  CHECK(std::all_of(covered.begin(), covered.end(), [](int n) { return n == 1; }));
  return whole;
}

/// What a checkpoint holds, but for the step record, which has this rank's first image.
std::vector<NamedTensor> whole_state(Trainer& trainer) {
  std::vector<NamedTensor> all;
  for (const StateTensor& t : trainer.state())
    if (t.name != "step_record") all.push_back({t.name, whole_of(t, trainer.ranks())});
  return all;
}

/// One rank's view of a training; `disturb` is a share by which its initial weights are off.
Trace train(TrainerConfig config, const MoreImages& images, const std::shared_ptr<Collectives>& ranks,
            double disturb = 0.0) {
  config.ranks = ranks;
  Trainer trainer(config);
  if (disturb > 0.0) {
    std::vector<double> w = trainer.arena().master.to_host();
    const Key k = key(1, "drift", "weights");
    for (std::size_t i = 0; i < w.size(); ++i) w[i] *= 1.0 + disturb * k.normal(i);
    const Tensor& master = trainer.arena().master;
    master.copy_from(Tensor::from(w, master.shape(), master.dtype(), config.device));
  }
  LoaderConfig training = images.config(true), test = images.config(false);
  share_batches(training, *ranks), share_batches(test, *ranks);
  Loader loader(images.data, images.task.train, images.task.transform, training);
  Trace trace;
  for (std::int64_t epoch = 0; epoch < kEpochs; ++epoch) {
    if (epoch % 2 == 0) {
      Loader once(images.data, images.task.train, images.task.transform, test);
      trainer.begin_task(epoch / 2, epoch ? "fresh" : "keep", true, [&] { return once.next(); });
    }
    while (const Batch* batch = loader.next()) trace.losses.push_back(trainer.step(*batch, 1.0).loss);
    Loader tested(images.data, images.task.test, images.task.transform, test);
    trace.accuracies.push_back(trainer.evaluate(tested).accuracy);
  }
  trace.sent = ranks->bytes_sent();
  const Tensor master = trainer.arena().master.to(kCpu);
  trace.weights.assign(static_cast<const char*>(master.data()), master.bytes());
  trace.state_bytes = trainer.optimizer().state_bytes();
  for (const NamedTensor& t : whole_state(trainer)) {
    trace.state += bytes_of(t.tensor);
    trace.tensors.emplace_back(t.name, t.tensor.to_host());
  }
  return trace;
}

std::string state_bytes_of(Trainer& trainer) {
  std::string all;
  for (const NamedTensor& t : whole_state(trainer)) all += bytes_of(t.tensor);
  return all;
}

std::vector<Trace> train_on(int size, const TrainerConfig& config, const MoreImages& images) {
  std::vector<Trace> all(static_cast<std::size_t>(size));
  run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
    all[std::size_t(ranks->rank())] = train(config, images, ranks);
  });
  return all;
}

/// Largest error of a step's loss as a share of what rounding may do by then (tolerance.h).
double worst_share(const Trace& ours, const Trace& one, const Trace& disturbed, bool in_double) {
  REQUIRE(ours.losses.size() == one.losses.size());
  double largest = 0.0, worst = 0.0;
  for (std::size_t t = 0; t < one.losses.size(); ++t) {
    largest = std::max(largest, std::abs(disturbed.losses[t] - one.losses[t]));
    const double error = std::abs(ours.losses[t] - one.losses[t]);
    const double bound =
        in_double ? drift_bound_in_double(largest, one.losses[t]) : drift_bound(largest, one.losses[t]);
    worst = error <= bound ? std::max(worst, error / bound) : HUGE_VAL;
  }
  return worst;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return std::sqrt(sum);
}

/// The first tensor of the state whose error, in its norm, is more than that of the disturbed training and rounding.
std::string strange_tensor(const Trace& ours, const Trace& one, const Trace& disturbed) {
  for (std::size_t i = 0; i < one.tensors.size(); ++i) {
    const auto& [name, right] = one.tensors[i];
    const double size = distance(right, std::vector<double>(right.size(), 0.0));
    const double bound = distance(disturbed.tensors[i].second, right) + kSameInDouble * (1.0 + size);
    if (!(distance(ours.tensors[i].second, right) <= bound)) return name;
  }
  return "";
}

void check_equal_to_one_rank(const std::string& method, Device device, std::initializer_list<int> sizes,
                             int accumulate = 1) {
  const OneThread scope;
  const MoreImages images;
  TrainerConfig config = three_blocks(method, device);
  config.accumulate = accumulate;
  if (accumulate > 1) config.vit.drop_path = 0.0;  // masks are drawn by place within a pass, and passes are cut by rank
  const bool in_double = device == kReference;
  const Trace one = train(config, images, single_rank());
  const Trace disturbed = train(config, images, single_rank(), in_double ? kDriftSeedInDouble : kDriftSeed);
  REQUIRE(one.losses.size() == 50);
  for (const int size : sizes) {
    const std::string shown = cat(method, " on ", device, ", ", size, " ranks");
    CAPTURE(shown);
    const std::vector<Trace> all = train_on(size, config, images);
    CHECK(worst_share(all[0], one, disturbed, in_double) <= 1.0);
    if (in_double) CHECK(strange_tensor(all[0], one, disturbed) == "");
    for (std::size_t e = 0; e < one.accuracies.size(); ++e)
      CHECK(std::abs(all[0].accuracies[e] - one.accuracies[e]) <= 0.03);
    for (const Trace& other : all) {
      CHECK(other.weights == all[0].weights);
      CHECK(other.losses == all[0].losses);
      CHECK(other.accuracies == all[0].accuracies);
    }
  }
}

std::string divergence(int size, const TrainerConfig& config, const MoreImages& images,
                       std::vector<std::string>* texts) {
  std::mutex mutex;
  run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
    try {
      TrainerConfig own = config;
      own.ranks = ranks;
      Trainer trainer(own);
      LoaderConfig c = images.config(true);
      share_batches(c, *ranks);
      Loader loader(images.data, images.task.train, images.task.transform, c);
      // Only rank 1's forward pass is broken: it alone has weights that are not finite.
      if (ranks->rank() == 1) {
        std::vector<double> w(std::size_t(trainer.arena().size), std::nan(""));
        const Tensor& master = trainer.arena().master;
        master.copy_from(Tensor::from(w, master.shape(), master.dtype(), own.device));
      }
      trainer.step(*loader.next(), 1.0);
    } catch (const Diverged& e) {
      const std::lock_guard lock(mutex);
      texts->push_back(e.what());
    }
  });
  return texts->empty() ? "" : texts->front();
}

}  // namespace

TEST_CASE("ranks: SGD, AdamW and ARROW train as one rank does, in double") {
  for (const char* method : some({"arrow:window=4:blocks=all", "sgd", "adamw"}))
    check_equal_to_one_rank(method, kReference, {2, 3});
}

TEST_CASE("ranks: SGD, AdamW and ARROW train as one rank does, in fp32") {
  for (const char* method : some({"sgd", "adamw", "arrow:window=4:blocks=all"}))
    check_equal_to_one_rank(method, kCpu, {2, 3, 4});
}

TEST_CASE("ranks: more ranks than images in a batch, and passes of which some ranks have fewer") {
  check_equal_to_one_rank("adamw", kReference, {7});  // the last batch has 4 images
  check_equal_to_one_rank("adamw", kReference, {3}, 3);
}

TEST_CASE("ranks: methods that watch hidden units, ascend, or read the new task's gradient") {
  for (const char* method : some({"sgd+cbp:rate=0.02:maturity=5", "adamw+redo:every=9:tau=0.3",
                                  "adamw+snr:tau-min=20:tau-max=200", "sam", "sgd+dash"}))
    check_equal_to_one_rank(method, kReference, {3});
}

TEST_CASE("ranks: repeats give the same bits") {
  const OneThread scope;
  const MoreImages images;
  const TrainerConfig config = three_blocks("arrow:window=4:blocks=all", kCpu);
  const std::string first = train_on(3, config, images)[0].weights;
  for (int repeat = 0; repeat < 2; ++repeat) CHECK(train_on(3, config, images)[0].weights == first);
}

namespace {

void check_divides_bitwise(const TrainerConfig& config, int size, const MoreImages& images) {
  const std::string shown = cat(to_text(config.method), " on ", config.device, ", ", size, " ranks");
  CAPTURE(shown);
  TrainerConfig parted = config;
  parted.zero = 1;
  const std::vector<Trace> whole = train_on(size, config, images), divided = train_on(size, parted, images);
  for (const Trace& rank : divided) {
    CHECK(rank.weights == whole[0].weights);
    CHECK(rank.state == whole[0].state);
    CHECK(rank.losses == whole[0].losses);
    CHECK(rank.accuracies == whole[0].accuracies);
  }
  CHECK(divided[0].state_bytes < whole[0].state_bytes);
}

}  // namespace

TEST_CASE("ranks: state divided among ranks gives the same bits, in the weights and in a checkpoint") {
  const OneThread scope;
  const MoreImages images;
  for (const char* method : {"sgd", "adam", "adamw"})
    for (const int size : {2, 3, 7}) {
      TrainerConfig config = three_blocks(method, kCpu);
      config.ema = size == 3 ? 0.9 : 0.0;
      config.clip_norm = size == 7 ? 1.0 : 0.05;  // the smaller one clips every step
      if (size == 2) config.accumulate = 2, config.vit.recompute = true;
      check_divides_bitwise(config, size, images);
    }
}

// What it adds up over elements is added up by ranks' pieces with --zero 0, too: Gram matrices, norms of the base's step, and what
// a momentum or a rounded ring needs besides.
TEST_CASE("ranks: ARROW's window divided among ranks takes the same steps, bit for bit") {
  const OneThread scope;
  const MoreImages images;
  const std::vector<std::pair<const char*, int>> cases{{"arrow:window=4:blocks=all", 2},
                                                       {"arrow:window=4:blocks=all", 3},
                                                       {"arrow:window=4:blocks=all:mlp=1:grouping=tensor", 7},
                                                       {"arrow:window=3:momentum=0.5:momentum-form=gradient", 5},
                                                       {"arrow:window=3:ring=bf16:graft=sgd", 3},
                                                       {"norm-control", 2}};
  for (const auto& [method, size] : cases) check_divides_bitwise(three_blocks(method, kCpu), size, images);
  check_divides_bitwise(three_blocks("arrow:window=4:blocks=all", kReference), 3, images);
}

// Another run than with fp32, of course, and --zero gives its bits too.
TEST_CASE("ranks: gradients that travel as bf16 are the rounded ones' sum, rounded, in half the bytes") {
  const OneThread scope;
  TrainerConfig config = three_blocks("adamw", kCpu);
  config.vit.precision = DType::f32;
  for (const bool own : {false, true}) {
    std::vector<std::vector<double>> sums(3), given(3);
    std::vector<Division> divisions(3);
    std::vector<std::int64_t> sent(3);
    run_loopback(3, [&](const std::shared_ptr<Collectives>& ranks) {
      const std::size_t r = std::size_t(ranks->rank());
      Trainer trainer(config);
      const Tensor& grad = trainer.arena().grad;
      const Key k = key(3, "test", "travelling", std::uint32_t(r));
      for (std::int64_t i = 0; i < grad.size(); ++i) given[r].push_back(double(float(k.normal(std::uint64_t(i)))));
      grad.copy_from(Tensor::from(given[r], grad.shape(), DType::f32, kCpu));
      GradientBuckets buckets(trainer.params(), trainer.arena(), 3, ranks, 0, true);
      buckets.begin(own);
      for (int group = 3; group-- > 0;) buckets.local_final(group, {}, [](int, Stream) {});
      buckets.finish({}, [](int, Stream) {});
      sums[r] = grad.to_host(), divisions[r] = buckets.division(), sent[r] = ranks->bytes_sent();
    });
    double worst = 0.0;
    std::int64_t wrong = 0;
    const std::size_t n = sums[0].size();
    for (std::size_t r = 0; r < 3; ++r)
      for (std::size_t i = 0; i < n; ++i) {
        const bool mine = divisions[r].own(std::int64_t(i), std::int64_t(i) + 1).size > 0;
        if (own && !mine) {
          wrong += sums[r][i] != given[r][i];  // nobody writes where no sum arrives
          continue;
        }
        float sum = 0.0f;
        double exact = 0.0, absolute = 0.0;
        for (const std::vector<double>& g : given)
          sum += float(bf16(float(g[i]))), exact += g[i], absolute += std::abs(g[i]);
        wrong += sums[r][i] != double(float(bf16(sum)));
        // One rounding of each term, one of the sum that they have, and fp32's two additions.
        const double u = unit_roundoff(DType::bf16);
        const double bound = u * absolute + u * (std::abs(exact) + u * absolute) + 3 * 0x1p-24 * absolute;
        worst = std::max(worst, std::abs(sums[r][i] - exact) / bound);
      }
    CHECK(wrong == 0);
    CHECK(worst <= 1.0);
    CHECK(worst > 0.1);
    CHECK(sent[0] + sent[1] + sent[2] == std::int64_t(n) * 2 * (own ? 1 : 2) * 2);  // 2 others, 2 bytes, once or twice
  }
  const MoreImages images;
  config.reduce_bf16 = true;
  const Trace whole = train_on(3, config, images)[0];
  config.zero = 1;
  CHECK(train_on(3, config, images)[2].state == whole.state);
  config.reduce_bf16 = false;
  CHECK(train_on(3, config, images)[2].state != whole.state);
}

// All ranks together: each of N sends what it does not own of its gradient, and what it owns of the weights to N-1 others.
TEST_CASE("ranks: a divided step sends (N-1)/N of the gradient and of the weights, as much as a whole sum") {
  const OneThread scope;
  const MoreImages images;
  TrainerConfig config = three_blocks("adamw", kCpu);
  const std::int64_t arena = std::int64_t(Trainer(config).arena().master.bytes());
  for (const int zero : {0, 1})
    for (const int size : {2, 5}) {
      config.zero = zero;
      std::int64_t sent = 0;
      for (const Trace& rank : train_on(size, config, images)) sent += rank.sent;
      const std::int64_t norm = sizeof(double), steps = 50;
      CHECK(sent == steps * (size - 1) * (arena + arena + 2 * norm));
    }
}

namespace {

/// Ranks whose whole sums are counted, and of which the second receives a part that is not finite: the poisoned-th (0: never).
class TestedRanks final : public Collectives {
 public:
  TestedRanks(std::shared_ptr<Collectives> inner, int poisoned) : inner_(std::move(inner)), left_(poisoned) {}
  int whole_sums = 0;
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  bool deterministic() const override { return true; }
  std::string name() const override { return "tested"; }
  void all_reduce(void* data, std::int64_t n, DType t, Stream s) override {
    ++whole_sums;
    inner_->all_reduce(data, n, t, s);
  }
  void reduce_scatter(void* data, std::int64_t n, DType t, Stream s) override {
    inner_->reduce_scatter(data, n, t, s);
    const RankPart own = RankPart::of(n, rank(), size());
    if (rank() == 1 && own.size > 0 && --left_ == 0) static_cast<float*>(data)[own.begin] = std::nanf("");
  }
  void all_gather(void* data, std::int64_t n, DType t, Stream s) override { inner_->all_gather(data, n, t, s); }
  void broadcast(void* data, std::int64_t n, int root, Stream s) override { inner_->broadcast(data, n, root, s); }
  void barrier() override { inner_->barrier(); }
  std::vector<std::string> all_gather_bytes(const std::string& t) override { return inner_->all_gather_bytes(t); }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }

 private:
  const std::shared_ptr<Collectives> inner_;
  int left_;
};

}  // namespace

TEST_CASE("ranks: a divided gradient that is not finite on one rank is skipped by all") {
  const OneThread scope;
  const MoreImages images;
  std::vector<std::string> before(3), after(3);
  std::vector<std::int64_t> skipped(3);
  run_loopback(3, [&](const std::shared_ptr<Collectives>& ranks) {
    TrainerConfig config = three_blocks("adamw", kCpu);
    config.ranks = std::make_shared<TestedRanks>(ranks, 1), config.zero = 1;
    Trainer trainer(config);
    LoaderConfig c = images.config(true);
    share_batches(c, *ranks);
    Loader loader(images.data, images.task.train, images.task.transform, c);
    before[std::size_t(ranks->rank())] = state_bytes_of(trainer);
    CHECK_FALSE(trainer.step(*loader.next(), 1.0).applied);
    after[std::size_t(ranks->rank())] = state_bytes_of(trainer);
    CHECK(trainer.step(*loader.next(), 1.0).applied);
    skipped[std::size_t(ranks->rank())] = trainer.skipped();
  });
  CHECK(after == before);
  CHECK(skipped == std::vector<std::int64_t>(3, 1));
}

TEST_CASE("ranks: a divided step of ARROW sends its windows, its norms and the gradient's norm in one message each") {
  const OneThread scope;
  const MoreImages images;
  std::vector<int> adamw(2), arrow(2);
  const auto sums_in_a_step = [&](const std::string& method, std::vector<int>& sums) {
    run_loopback(2, [&](const std::shared_ptr<Collectives>& ranks) {
      const auto watched = std::make_shared<TestedRanks>(ranks, 0);
      TrainerConfig config = three_blocks(method, kCpu);
      config.ranks = watched, config.zero = 1;
      Trainer trainer(config);
      LoaderConfig c = images.config(true);
      share_batches(c, *ranks);
      Loader loader(images.data, images.task.train, images.task.transform, c);
      trainer.step(*loader.next(), 1.0);
      sums[std::size_t(ranks->rank())] = watched->whole_sums;
    });
  };
  sums_in_a_step("adamw", adamw), sums_in_a_step("arrow:window=4:blocks=all", arrow);  // three groups
  CHECK(adamw == std::vector<int>{1, 1});
  CHECK(arrow == std::vector<int>{3, 3});
}

namespace {

/// A start on some ranks with one folder: reads the newest checkpoint, if there is one, trains on (`rounds` times the same images),
/// saves. The state at the beginning and at the end, which is the same on all ranks.
struct Start {
  std::string begin, end;
};
Start start_in(const TemporaryFolder& folder, TrainerConfig config, int size, int zero, std::int64_t step,
               const MoreImages& images, int rounds = 1) {
  config.zero = zero;
  std::vector<Start> all(static_cast<std::size_t>(size));
  std::vector<std::string> texts(static_cast<std::size_t>(size));
  if (step == 1) Checkpoints(folder.path());
  run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
    TrainerConfig own = config;
    own.ranks = ranks;
    Trainer trainer(own);
    Checkpoints checkpoints = Checkpoints::of_another_rank(folder.path());
    if (const auto found = load_latest(checkpoints, *ranks)) {
      CHECK(found->step == step - 1);
      CHECK(found->state.at("saved") == step - 1);
      found->restore(trainer.state());
      trainer.restored();
    }
    trainer.check_ranks_agree();
    Start& s = all[std::size_t(ranks->rank())];
    s.begin = state_bytes_of(trainer);
    LoaderConfig c = images.config(true);
    share_batches(c, *ranks);
    for (int round = 0; round < rounds; ++round) {
      Loader loader(images.data, images.task.train, images.task.transform, c);
      for (int i = 0; i < 6; ++i) trainer.step(*loader.next(), 1.0);
    }
    s.end = state_bytes_of(trainer);
    save_checkpoint(checkpoints, *ranks, step, trainer.state(), [&] { return nlohmann::json{{"saved", step}}; });
    ranks->barrier();
  });
  for (const Start& s : all) {
    CHECK(s.begin == all[0].begin);
    CHECK(s.end == all[0].end);
  }
  return all[0];
}

}  // namespace

TEST_CASE("ranks: each writes its part of a checkpoint, and any number of them reads it") {
  const OneThread scope;
  const MoreImages images;
  for (const char* method : {"adamw", "sgd", "arrow:window=4:blocks=all:momentum=0.5"}) {
    TrainerConfig config = three_blocks(method, kCpu);
    config.ema = 0.9;
    const TemporaryFolder folder;
    std::string before;
    std::int64_t step = 0;
    for (const auto& [size, zero] :
         std::vector<std::pair<int, int>>{{2, 0}, {3, 1}, {4, 1}, {4, 1}, {1, 0}, {7, 1}, {2, 0}}) {
      const std::string shown = cat(method, ", step ", step + 1, ", ", size, " ranks, --zero ", zero);
      CAPTURE(shown);
      const Start s = start_in(folder, config, size, zero, ++step, images);
      if (step > 1) CHECK(s.begin == before);
      CHECK(s.end != s.begin);
      before = s.end;
      std::size_t files = 0;
      for (const auto& entry : fs::directory_iterator(folder.path()))
        files += entry.path().filename().string().starts_with(cat("step-", step, ".")) &&
                 entry.path().extension() == ".safetensors";
      CHECK(files == std::size_t(zero ? size : 1));
    }
  }
}

TEST_CASE("ranks: a divided run that was saved and read back goes on with the bits of one that was not") {
  const OneThread scope;
  const MoreImages images;
  for (const char* method : some({"arrow:window=4:blocks=all:momentum=0.5", "adamw"}))
    for (const int zero : {0, 1}) {
      const std::string shown = cat(method, ", --zero ", zero);
      CAPTURE(shown);
      const TrainerConfig config = three_blocks(method, kCpu);
      const TemporaryFolder once, twice;
      start_in(twice, config, 3, zero, 1, images);
      CHECK(start_in(twice, config, 3, zero, 2, images).end == start_in(once, config, 3, zero, 1, images, 2).end);
    }
}

TEST_CASE("ranks: one damaged part of a checkpoint costs that checkpoint, on all ranks, and is named") {
  const OneThread scope;
  const MoreImages images;
  const TrainerConfig config = three_blocks("adamw", kCpu);
  const TemporaryFolder folder;
  const Start first = start_in(folder, config, 3, 1, 1, images);
  start_in(folder, config, 3, 1, 2, images);
  const fs::path part = folder / "step-2.rank-1.safetensors";
  std::string bytes = read_file(part);
  bytes[bytes.size() - 9] = char(bytes[bytes.size() - 9] ^ 1);
  write_file(part, bytes);
  std::vector<std::string> notes;
  const auto found = Checkpoints::of_another_rank(folder.path()).load_latest(&notes);
  REQUIRE(found);
  CHECK(found->step == 1);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].find("step-2.rank-1.safetensors is damaged: its checksum is wrong") != std::string::npos);
  // Among ranks, of which only the one whose turn it is reads that file through.
  for (const int size : {2, 5}) {
    std::vector<std::int64_t> steps(static_cast<std::size_t>(size));
    run_loopback(size, [&](const std::shared_ptr<Collectives>& ranks) {
      steps[std::size_t(ranks->rank())] = load_latest(Checkpoints::of_another_rank(folder.path()), *ranks)->step;
    });
    CHECK(steps == std::vector<std::int64_t>(std::size_t(size), 1));
  }
  fs::remove(folder / "step-1.rank-2.safetensors");
  CHECK_THROWS_WITH_AS(open_checkpoint(folder / "step-1.json"), doctest::Contains("step-1.rank-2.safetensors"), Error);
}

TEST_CASE("ranks: state that is no matter of single weights is not divided") {
  run_loopback(2, [&](const std::shared_ptr<Collectives>& ranks) {
    for (const char* method : {"muon", "adamw+cbp", "upgd"}) {
      TrainerConfig config = three_blocks(method, kCpu);
      config.ranks = ranks, config.zero = 1;
      CHECK_THROWS_AS(Trainer trainer(config), Error);
    }
  });
}

TEST_CASE("ranks: a loss that is not finite on one rank stops all, with the same words") {
  const OneThread scope;
  std::vector<std::string> texts;
  const std::string first = divergence(3, three_blocks("adamw", kCpu), MoreImages(), &texts);
  CHECK(texts == std::vector<std::string>(3, first));
  CHECK(first.find("rank 1 of 3: the loss is ") == 0);
}

TEST_CASE("ranks: a method that watches images of its own gets the same ones as on one rank") {
  // A batch has 8 images and a rank of three 3 of them: the probe's 7 lie on all.
  for (const char* method : {"adamw+adaptive-replay:every=2:probe=7:delta=0.02:low=1:high=3"})
    check_equal_to_one_rank(method, kReference, {3});
}

TEST_CASE("ranks: gradient buckets cover the arena once, in order of completion") {
  TrainerConfig config = three_blocks("adamw", kCpu);
  Trainer trainer(config);
  std::vector<std::shared_ptr<Collectives>> two;
  for (auto& r : loopback_ranks(2)) two.push_back(std::move(r));
  for (const std::int64_t least : {std::int64_t(0), std::int64_t(8) << 20}) {
    const GradientBuckets buckets(trainer.params(), trainer.arena(), 3, two[0], least);
    std::vector<std::vector<int>> groups;
    std::vector<int> covered(std::size_t(trainer.arena().size), 0);
    for (const GradientBuckets::Bucket& b : buckets.buckets()) {
      groups.push_back(b.groups);
      for (const GradientBuckets::Range& r : b.ranges)
        for (std::int64_t i = r.begin; i < r.end; ++i) ++covered[std::size_t(i)];
    }
    CHECK(std::all_of(covered.begin(), covered.end(), [](int n) { return n == 1; }));
    using Groups = std::vector<std::vector<int>>;
    CHECK(groups == (least ? Groups{{2, 1}, {0}, {3}} : Groups{{2}, {1}, {0}, {3}}));
    CHECK(buckets.buckets().back().ranges.size() == 2);  // the head before the blocks, the embedding behind them
  }
}
