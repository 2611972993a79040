// tests/apps/test_ranks_divided.cpp - updates and sums that are divided among ranks: the same bits as whole ones, fewer bytes.
#include <cmath>

#include "apps/distributed/gradient_buckets.h"
#include "tests/apps/ranks_training.h"
#include "tests/tolerance.h"

using namespace eg;
using namespace eg::test;

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
