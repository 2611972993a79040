// tests/engine/test_collectives.cpp - sums over ranks: their order, their bits, and what happens when ranks disagree.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "engine/collectives/agree.h"
#include "engine/collectives/division.h"
#include "engine/collectives/loopback.h"
#include "engine/collectives/mpi.h"
#include "engine/collectives/ordered_sum.h"
#include "engine/error.h"
#include "engine/rng.h"
#include "tests/ranks/against_loopback.h"

using namespace eg;

namespace {

template <class T>
std::vector<T> draw(int rank, std::int64_t count) {
  const Key k = key(7, "test", "collectives", std::uint32_t(rank));
  std::vector<T> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(T(float(k.normal(std::uint64_t(i)))));
  return values;
}

template <class T>
std::string bits(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

/// In ascending order, in the given precision, rounded once.
template <class T, class Sum>
std::vector<T> expected(int ranks, std::int64_t count) {
  std::vector<std::vector<T>> all;
  for (int r = 0; r < ranks; ++r) all.push_back(draw<T>(r, count));
  std::vector<T> out;
  for (std::size_t i = 0; i < std::size_t(count); ++i) {
    Sum sum = Sum(all[0][i]);
    for (int r = 1; r < ranks; ++r) sum += Sum(all[std::size_t(r)][i]);
    out.push_back(T(sum));
  }
  return out;
}

/// All operations on `count` elements; the number of results that are right, of 3.
template <class T, class Sum>
int right_sums(Collectives& c, DType dtype, std::int64_t count) {
  const std::vector<T> mine = draw<T>(c.rank(), count), sum = expected<T, Sum>(c.size(), count);
  std::vector<T> data = mine, parts = mine, part = mine;
  c.all_reduce(data.data(), count, dtype, {});
  const RankPart own = RankPart::of(count, c.rank(), c.size());
  std::copy_n(sum.begin() + own.begin, own.size, part.begin() + own.begin);
  c.reduce_scatter(parts.data(), count, dtype, {});
  const bool scattered = bits(parts) == bits(part);  // its own part of the same sum, and nothing else has changed
  c.all_gather(parts.data(), count, dtype, {});
  return (bits(data) == bits(sum)) + scattered + (bits(parts) == bits(sum));
}

template <class T, class Sum>
void check_sums(DType dtype) {
  for (const int ranks : {1, 2, 3, 5})
    for (const std::int64_t count : {0, 1, 7, 16, 33, 1024, 2500}) {  // of 33 elements some of five ranks have none
      std::atomic<int> good{0};
      run_loopback(ranks, [&](const std::shared_ptr<Collectives>& c) { good += right_sums<T, Sum>(*c, dtype, count); });
      CAPTURE(ranks);
      CAPTURE(count);
      CHECK(good == 3 * ranks);
    }
}

std::string refusal(int ranks, const std::function<void(Collectives&)>& body) {
  try {
    run_loopback(ranks, [&](const std::shared_ptr<Collectives>& c) { body(*c); });
  } catch (const Error& e) { return e.what(); }
  return "";
}

}  // namespace

TEST_CASE("collectives: sums over ranks are taken in ascending order, bit for bit, in every type") {
  check_sums<float, float>(DType::f32);
  check_sums<double, double>(DType::f64);
  check_sums<bf16, float>(DType::bf16);
}

TEST_CASE("collectives: a range is cut into aligned parts, each element in one of them") {
  for (const int ranks : {1, 2, 3, 8})
    for (const std::int64_t count : {0, 1, 16, 17, 100, 4096, 4097}) {
      CAPTURE(ranks);
      CAPTURE(count);
      std::int64_t next = 0, longest = 0, sum = 0;
      for (int r = 0; r < ranks; ++r) {
        const RankPart p = RankPart::of(count, r, ranks);
        CHECK(p.size >= 0);
        CHECK(p.begin == next);
        CHECK((p.begin % 16 == 0 || p.size == 0));
        next = p.begin + p.size, sum += p.size, longest = std::max(longest, p.size);
      }
      CHECK(sum == count);
      CHECK(longest < count / ranks + 17);
    }
}

TEST_CASE("collectives: a division gives each element of each range to one rank, and puts together what they keep") {
  std::atomic<int> good{0};
  run_loopback(3, [&](const std::shared_ptr<Collectives>& c) {
    // [0, 32) and what lies between the two are gaps, which are divided too.
    const Division d = Division::of(400, {{208, 400}, {32, 112}}, c);
    good += d.ranges.size() == 4 && d.ranges[1].begin == 32 && d.ranges[3].end == 400;
    std::int64_t next = 0;
    for (const Division::Piece& p : d.pieces) good += p.own == next, next += p.size;
    good += next == d.size;
    std::vector<double> owners(400, 0.0), numbers(400);
    for (const Division::Piece& p : d.pieces)
      for (std::int64_t i = p.begin; i < p.begin + p.size; ++i) owners[std::size_t(i)] = 1.0;
    c->sum_on_host(owners);
    good += owners == std::vector<double>(400, 1.0);
    for (std::size_t i = 0; i < 400; ++i) numbers[i] = double(i);
    const Tensor all = Tensor::from(numbers, {400}, DType::f32, kCpu), kept = Tensor::zeros({d.size}, DType::f32, kCpu);
    d.take(all, kept);
    good += d.assemble(kept).to_host() == numbers;
    // 32 .. 112 in parts of 32: rank 1 has 64 .. 96.
    const Division::Piece own = d.own(70, 110);
    good += c->rank() == 1 ? own.begin == 70 && own.size == 26 : c->rank() == 2 ? own.begin == 96 : own.size == 0;
  });
  // Of [0, 32) the third rank has nothing.
  CHECK(good == 3 * 5 + 4 + 4 + 3);
  CHECK_THROWS_AS(Division::of(10, {{0, 6}, {5, 10}}, single_rank()), Error);
  CHECK_THROWS_AS(Division::of(10, {{0, 11}}, single_rank()), Error);
}

// 1000 fp32 numbers in parts of 336, 336 and 328: who has the most sends least to be added up, and most of the sums.
TEST_CASE("collectives: a sum of parts sends half of what a whole sum does") {
  std::vector<std::vector<std::int64_t>> sent(3);
  run_loopback(3, [&](const std::shared_ptr<Collectives>& c) {
    std::vector<float> data(1000);
    std::vector<std::int64_t>& mine = sent[std::size_t(c->rank())];
    mine.push_back(c->bytes_sent());
    c->reduce_scatter(data.data(), 1000, DType::f32, {}), mine.push_back(c->bytes_sent());
    c->all_gather(data.data(), 1000, DType::f32, {}), mine.push_back(c->bytes_sent());
    c->all_reduce(data.data(), 1000, DType::f32, {}), mine.push_back(c->bytes_sent());
  });
  using Bytes = std::vector<std::int64_t>;
  CHECK(sent[0] == Bytes{0, 4 * 664, 4 * (664 + 672), 8 * (664 + 672)});
  CHECK(sent[2] == Bytes{0, 4 * 672, 4 * (672 + 656), 8 * (672 + 656)});
}

TEST_CASE("collectives: bf16 is added in fp32 and rounded once") {
  // 1 + 2^-8 lies half way between two numbers of the type, and rounds to the even one, 1: added one by one, both would be lost.
  const std::vector<bf16> a{bf16(1.0f)}, b{bf16(0x1p-8f)}, c{bf16(0x1p-8f)};
  const std::vector<const void*> parts{a.data(), b.data(), c.data()};
  bf16 out{};
  ordered_sum(parts, &out, 1, DType::bf16);
  CHECK(float(out) == 1.0f + 0x1p-7f);
}

TEST_CASE("collectives: only numbers are added up") {
  std::vector<std::int32_t> data{1};
  CHECK_THROWS_WITH_AS(loopback_ranks(1)[0]->all_reduce(data.data(), 1, DType::i32, {}),
                       "all_reduce over ranks adds f32, f64 or bf16 numbers, not i32", Error);
}

TEST_CASE("collectives: texts, votes, reasons and totals reach every rank in order") {
  std::atomic<int> good{0};
  run_loopback(3, [&](const std::shared_ptr<Collectives>& c) {
    const int r = c->rank();
    const auto texts = c->all_gather_bytes(std::string(std::size_t(r), 'x') + std::string(1, '\0'));
    for (int i = 0; i < 3; ++i)
      good += texts[std::size_t(i)] == std::string(std::size_t(i), 'x') + std::string(1, '\0');
    double totals[] = {double(r), 0.25};
    c->sum_on_host(totals);
    good += totals[0] == 3.0 && totals[1] == 0.75;
    good += on_any_rank(*c, r == 2);
    good += !on_any_rank(*c, false);
    good += first_text(*c, r == 0 ? "" : cat("reason ", r)) == "rank 1 of 3: reason 1";
    good += first_text(*c, "").empty();
    double broadcast = r == 1 ? 42.0 : 0.0;
    c->broadcast(&broadcast, sizeof broadcast, 1, {});
    good += broadcast == 42.0;
    c->barrier();
  });
  CHECK(good == 3 * 9);
}

TEST_CASE("collectives: one rank alone has every sum already") {
  const auto one = single_rank();
  std::vector<float> in{1.0f, 2.0f};
  one->all_reduce(in.data(), 2, DType::f32, {});
  one->reduce_scatter(in.data(), 2, DType::f32, {});
  one->all_gather(in.data(), 2, DType::f32, {});
  CHECK(in == std::vector<float>{1.0f, 2.0f});
  CHECK(one->all_gather_bytes("me") == std::vector<std::string>{"me"});
  CHECK(first_text(*one, "why") == "why");
}

TEST_CASE("collectives: ranks that call different operations are told so, and none hangs") {
  std::vector<float> data(8);
  const std::string sizes = refusal(3, [&](Collectives& c) {
    std::vector<float> own(8);
    c.all_reduce(own.data(), c.rank() == 2 ? 7 : 8, DType::f32, {});
  });
  CHECK(sizes.find("ranks disagree") != std::string::npos);
  CHECK(sizes.find("all_reduce of 7 f32") != std::string::npos);
  const std::string kinds = refusal(2, [&](Collectives& c) {
    std::vector<float> own(8);
    c.rank() ? c.barrier() : c.all_reduce(own.data(), 8, DType::f32, {});
  });
  CHECK(kinds.find("barrier") != std::string::npos);
  const std::string same =
      refusal(2, [&](Collectives& c) { check_same_on_ranks(c, "the seed", cat(c.rank()), "use one"); });
  CHECK(same.find("the ranks differ in the seed (rank 0: 0; rank 1: 1); use one") != std::string::npos);
}

TEST_CASE("collectives: a rank that fails ends those that wait for it, with its reason") {
  std::atomic<int> heard{0};
  const std::string why = refusal(3, [&](Collectives& c) {
    if (c.rank() == 1) fail(Kind::io, "the disk is full");
    try {
      c.barrier();
    } catch (const Error& e) {
      heard += std::string(e.what()) == "another rank ended the run: rank 1 failed";
      throw;
    }
  });
  CHECK(why == "the disk is full");
  CHECK(heard == 2);
}

// Started by tests/scripts/test_ranks.py, once for each number of ranks.
namespace {

/// Ranks that make one of the mistakes that a backend can make; fault 0: none.
class Faulty final : public Collectives {
 public:
  Faulty(std::shared_ptr<Collectives> inner, int fault) : inner_(std::move(inner)), fault_(fault) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  bool deterministic() const override { return fault_ != 5; }
  std::string name() const override { return "faulty"; }
  void all_reduce(void* data, std::int64_t n, DType t, Stream s) override {
    // bf16 that is rounded at every hop, as by a ring; f32 in descending order.
    if ((fault_ == 1 && t == DType::bf16) || ((fault_ == 2 || fault_ == 5) && t == DType::f32)) {
      const std::size_t bytes = std::size_t(n) * size_of(t);
      const auto all = inner_->all_gather_bytes(std::string(static_cast<char*>(data), bytes));
      std::string sum = all.back();
      for (std::size_t r = all.size() - 1; r-- > 0;) {
        const void* parts[] = {sum.data(), all[r].data()};
        ordered_sum(parts, sum.data(), n, t);
      }
      std::memcpy(data, sum.data(), bytes);
    } else {
      inner_->all_reduce(data, n, t, s);
    }
  }
  void reduce_scatter(void* data, std::int64_t n, DType t, Stream s) override {
    fault_ == 3 ? inner_->all_reduce(data, n, t, s)
                : inner_->reduce_scatter(data, n, t, s);  // 3: the others' parts too
  }
  void all_gather(void* data, std::int64_t n, DType t, Stream s) override { inner_->all_gather(data, n, t, s); }
  void broadcast(void* data, std::int64_t n, int root, Stream s) override {
    inner_->broadcast(data, n, fault_ == 4 ? 0 : root, s);
  }
  void barrier() override { inner_->barrier(); }
  std::vector<std::string> all_gather_bytes(const std::string& t) override { return inner_->all_gather_bytes(t); }
  void abort(const std::string& why) noexcept override { inner_->abort(why); }

 private:
  const std::shared_ptr<Collectives> inner_;
  const int fault_;
};

}  // namespace

TEST_CASE("collectives: what the NCCL probe asks finds a backend's mistakes, and none in loopback itself") {
  const char* const found[] = {"", "all_reduce of bf16", "all_reduce of f32", "reduce_scatter of", "broadcast of", ""};
  for (int fault = 0; fault < 6; ++fault) {
    CAPTURE(fault);
    std::vector<std::vector<std::string>> wrong(3);
    run_loopback(3, [&](const std::shared_ptr<Collectives>& ranks) {
      Faulty c(ranks, fault);
      wrong[std::size_t(c.rank())] = test::differences_from_loopback(c, kCpu, {}, 5003);
    });
    // 5: another order of f32, by a backend that promises none.
    if (fault == 0 || fault == 5) CHECK(wrong == std::vector<std::vector<std::string>>(3));
    for (const std::string& text : wrong[1]) CHECK(text.find(found[fault]) == 0);
    CHECK(wrong[1].empty() == (fault == 0 || fault == 5));
  }
}

TEST_CASE("collectives: MPI gives the loopback's bits" *
          doctest::skip(std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr)) {
  const auto mpi = mpi_ranks(kCpu);
  CHECK(test::differences_from_loopback(*mpi, kCpu, {}, 40000) == std::vector<std::string>());
  CHECK(mpi->size() == std::atoi(std::getenv("OMPI_COMM_WORLD_SIZE")));
  for (const std::int64_t count : {0, 1, 17, 1000, 5000, 40000}) {
    CAPTURE(count);
    CHECK(right_sums<float, float>(*mpi, DType::f32, count) == 3);
    CHECK(right_sums<double, double>(*mpi, DType::f64, count) == 3);
    CHECK(right_sums<bf16, float>(*mpi, DType::bf16, count) == 3);
  }
  // Longer than one message: each element is its index's remainder, so that a piece in the wrong place shows.
  const std::int64_t count = (std::int64_t(1) << 22) + 3, all = count * mpi->size();
  std::vector<float> long_one(static_cast<std::size_t>(all));
  const auto fill = [&] {
    for (std::size_t i = 0; i < long_one.size(); ++i) long_one[i] = float(i % 8191);
  };
  const auto wrong = [&] {
    std::int64_t n = 0;
    for (std::size_t i = 0; i < long_one.size(); ++i) n += long_one[i] != float(i % 8191) * float(mpi->size());
    return n;
  };
  fill(), mpi->all_reduce(long_one.data(), all, DType::f32, {});
  CHECK(wrong() == 0);
  const std::int64_t before = mpi->bytes_sent();
  fill(), mpi->reduce_scatter(long_one.data(), all, DType::f32, {});
  const RankPart own = RankPart::of(all, mpi->rank(), mpi->size());
  CHECK(mpi->bytes_sent() - before == 4 * (all - own.size));
  mpi->all_gather(long_one.data(), all, DType::f32, {});
  CHECK(mpi->bytes_sent() - before == 4 * (all - own.size) + 4 * own.size * (mpi->size() - 1));
  CHECK(wrong() == 0);
  double text = mpi->rank() == mpi->size() - 1 ? 0.5 : 0.0;
  mpi->broadcast(&text, sizeof text, mpi->size() - 1, {});
  CHECK(text == 0.5);
  double totals[] = {double(mpi->rank()), 1.0};
  mpi->sum_on_host(totals);
  CHECK(totals[0] == mpi->size() * (mpi->size() - 1) / 2);
  const auto texts = mpi->all_gather_bytes(std::string(std::size_t(mpi->rank()), 'x'));
  for (int r = 0; r < mpi->size(); ++r) CHECK(texts[std::size_t(r)] == std::string(std::size_t(r), 'x'));
  mpi->barrier();
}
