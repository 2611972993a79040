// tests/apps/test_ranks.cpp - several ranks in one process: the same training as one rank's, and the same on all of them.
#include <cmath>
#include <mutex>

#include "apps/distributed/gradient_buckets.h"
#include "tests/apps/ranks_training.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;

namespace {

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
