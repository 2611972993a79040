// tests/autograd/test_tape.cpp - the tape itself: who gets which gradient, when, and at what cost in memory.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "autograd/functions.h"
#include "autograd/tape.h"
#include "engine/memory.h"
#include "tests/autograd/harness.h"

namespace eg::test {

namespace {

Tensor drawn(const Shape& shape, Device device, DType dtype, std::uint32_t stream, double scale = 1.0) {
  std::vector<double> v(std::size_t(shape.size()));
  const Key k = key(3, "tests", "tape", stream);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = scale * double(bf16(k.normal(i)));
  return Tensor::from(std::span<const double>(v), shape, dtype, device);
}

Tensor labels_below(std::int64_t batch, std::int64_t classes, Device device) {
  std::vector<std::int32_t> v;
  for (std::int64_t i = 0; i < batch; ++i) v.push_back(std::int32_t((i * 7 + 3) % classes));
  return Tensor::from(std::span<const std::int32_t>(v), {batch}, device);
}

/// A block-shaped network small enough to think about: embed, two residual blocks, head.
struct Net {
  static constexpr std::int64_t kIn = 6, kWidth = 8, kClasses = 5;
  std::vector<Tensor> w, g;  // parameters and gradients: embed w, b; per block gamma, beta, w1, b1, w2, b2; head w, b
  Device device;
  DType dtype;

  Net(Device d, DType t) : device(d), dtype(t) {
    const auto add_param = [&](const Shape& shape, double scale) {
      w.push_back(drawn(shape, d, t, std::uint32_t(w.size() + 50), scale));
      g.push_back(Tensor::zeros(shape, d.statistic(), d));
    };
    add_param({kWidth, kIn}, 0.5), add_param({kWidth}, 0.1);
    for (int block = 0; block < 2; ++block) {
      add_param({kWidth}, 1.0), add_param({kWidth}, 0.1);
      add_param({12, kWidth}, 0.4), add_param({12}, 0.1), add_param({kWidth, 12}, 0.4), add_param({kWidth}, 0.1);
    }
    add_param({kClasses, kWidth}, 0.5), add_param({kClasses}, 0.1);
  }
  static int group_of(std::size_t i) { return i < 2 ? 0 : i < 8 ? 1 : i < 14 ? 2 : 3; }
  void watch(Tape& tape, bool accumulate = false) {
    for (std::size_t i = 0; i < w.size(); ++i) {
      w[i] = w[i].detached();
      tape.watch(w[i], g[i].view(), accumulate, group_of(i));
    }
  }
  Tensor block(const Tensor& x, std::size_t at) const {
    const Tensor y = layer_norm(x, w[at], w[at + 1]);
    return add(x, mlp(y, w[at + 2], w[at + 3], w[at + 4], w[at + 5]));
  }
  Tensor logits(const Tensor& images, bool recomputed = false) const {
    Tensor x = linear(images, w[0], w[1]);
    for (std::size_t at = 2; at < 14; at += 6) {
      if (recomputed)
        x = recompute(x, std::span(w).subspan(at, 6), [this, at](const Tensor& t) { return block(t, at); });
      else
        x = block(x, at);
    }
    return linear(x, w[14], w[15]);
  }
  std::vector<std::vector<double>> gradients() const {
    std::vector<std::vector<double>> all;
    for (const Tensor& t : g) all.push_back(t.to_host());
    return all;
  }
};

void step(Net& net, const Tensor& images, const Tensor& labels, bool recomputed = false, bool accumulate = false,
          double divisor = 0.0) {
  Tape tape;
  net.watch(tape, accumulate);
  backward(tape, cross_entropy(net.logits(images, recomputed), labels, {}, {}, 0.0, divisor));
}

std::string thrown(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.kind == Kind::usage);
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("tape: results inherit the tape, and backward empties it") {
  Tape tape;
  Tensor x = drawn({2, 3}, kReference, DType::f64, 1);
  const Tensor gradient = Tensor::zeros({2, 3}, DType::f64, kReference);
  tape.watch(x, gradient.view());
  const Tensor loss = mean(gelu(x));
  CHECK(loss.tape() == &tape);
  CHECK(tape.node_count() == 2);
  backward(tape, loss);
  CHECK(tape.node_count() == 0);
  CHECK(thrown([&] { backward(tape, loss); }).find("not recorded") != std::string::npos);
}

TEST_CASE("tape: d(loss)/d(loss) is the seed") {
  Tensor x = drawn({2, 3}, kReference, DType::f64, 1);
  const Tensor gradient = Tensor::zeros({2, 3}, DType::f64, kReference);
  Tape tape;
  tape.watch(x, gradient.view());
  backward(tape, mean(x), 3.0);
  for (const double v : gradient.to_host()) CHECK(v == doctest::Approx(0.5).epsilon(1e-14));
}

TEST_CASE("tape: a loss that was not recorded, is no single number or belongs to another tape is refused") {
  Tape tape, other;
  Tensor x = drawn({2, 3}, kReference, DType::f64, 1);
  const Tensor gradient = Tensor::zeros({2, 3}, DType::f64, kReference);
  CHECK(thrown([&] { backward(tape, mean(x)); }).find("not recorded") != std::string::npos);
  CHECK(thrown([&] { backward(tape, Tensor()); }).find("loss") != std::string::npos);
  tape.watch(x, gradient.view());
  CHECK(thrown([&] { backward(tape, gelu(x)); }).find("one element") != std::string::npos);
  CHECK(thrown([&] { backward(other, mean(x)); }).find("not recorded") != std::string::npos);
  Tensor y = drawn({2, 3}, kReference, DType::f64, 2);
  other.watch(y, gradient.view());
  CHECK(thrown([&] { add(x, y); }).find("two different tapes") != std::string::npos);
  CHECK(thrown([&] { tape.watch(x, gradient.view()); }).find("already") != std::string::npos);
}

TEST_CASE("tape: a tensor that outlives its tape has no tape any more") {
  Tensor x = drawn({2, 3}, kReference, DType::f64, 1);
  const Tensor gradient = Tensor::zeros({2, 3}, DType::f64, kReference);
  {
    Tape gone;
    gone.watch(x, gradient.view());
  }
  const Tensor y = gelu(x);
  CHECK(y.tape() == nullptr);
  Tape tape;
  tape.watch(x, gradient.view());
  backward(tape, mean(add(x, y)));
  for (const double v : gradient.to_host()) CHECK(v == doctest::Approx(1.0 / 6).epsilon(1e-14));
}

TEST_CASE("tape: a tensor used twice gets the sum of both gradients") {
  for (const bool leaf : {true, false}) {
    CAPTURE(leaf);
    Tensor x = drawn({4, 3}, kReference, DType::f64, 1);
    Tensor w = drawn({3, 3}, kReference, DType::f64, 2);
    const Tensor gx = Tensor::zeros({4, 3}, DType::f64, kReference), gw = Tensor::zeros({3, 3}, DType::f64, kReference);
    const auto fn = [&](const Tensor& t, const Tensor& m) {
      const Tensor s = leaf ? t : gelu(t);
      const Tensor doubled = add(s, s);                        // the same value twice in one op
      const Tensor chained = linear(linear(s, m, {}), m, {});  // a weight in two ops
      const auto [sum, y] = residual_layer_norm(doubled, doubled, pool_tokens(m.reshape({1, 3, 3}), 0, 1).reshape({3}),
                                                pool_tokens(m.reshape({1, 3, 3}), 1, 1).reshape({3}));
      return mean(add(add(sum, y), add(chained, s)));
    };
    {
      Tape tape;
      tape.watch(x, gx.view());
      tape.watch(w, gw.view());
      backward(tape, fn(x, w));
    }
    for (const bool of_x : {true, false}) {
      const Tensor& at = of_x ? x : w;
      const std::vector<double> analytic = (of_x ? gx : gw).to_host();
      for (std::int64_t i = 0; i < at.size(); ++i) {
        double loss[2];
        for (const int side : {0, 1}) {
          const Tensor moved = at.clone();
          moved.data_as<double>()[i] += side ? 1e-5 : -1e-5;
          loss[side] = fn(of_x ? moved : x.detached(), of_x ? w.detached() : moved).to_host()[0];
        }
        CHECK(analytic[std::size_t(i)] == doctest::Approx((loss[1] - loss[0]) / 2e-5).epsilon(1e-6));
      }
    }
  }
}

TEST_CASE("tape: micro-batches that accumulate equal the large batch") {
  Net net(kReference, DType::f64);
  const Tensor images = drawn({6, Net::kIn}, kReference, DType::f64, 5),
               labels = labels_below(6, Net::kClasses, kReference);
  step(net, images, labels);
  const auto whole = net.gradients();
  for (int part = 0; part < 3; ++part)
    step(net, images.slice(part * 2, 2), labels.slice(part * 2, 2), false, part > 0, 6.0);
  const auto parts = net.gradients();
  for (std::size_t i = 0; i < whole.size(); ++i) CHECK(distance(parts[i], whole[i]) <= 1e-13 * (1 + norm(whole[i])));
}

TEST_CASE("tape: a leaf that no gradient reaches is cleared, or kept when it accumulates") {
  for (const bool accumulate : {false, true}) {
    Tensor x = drawn({3}, kReference, DType::f64, 1), unused = drawn({3}, kReference, DType::f64, 2);
    const Tensor gx = Tensor::zeros({3}, DType::f64, kReference), gu = drawn({3}, kReference, DType::f64, 3);
    const std::vector<double> before = gu.to_host();
    Tape tape;
    tape.watch(x, gx.view());
    tape.watch(unused, gu.view(), accumulate, 4);
    gelu(unused);  // recorded, but the loss does not depend on it
    backward(tape, mean(x));
    CHECK(gu.to_host() == (accumulate ? before : std::vector<double>(3, 0.0)));
  }
}

TEST_CASE("recompute: gradients are the same bits as without it (f32 and bf16, cpu)") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    CAPTURE(dtype);
    Net net(kCpu, dtype);
    const Tensor images = drawn({4, Net::kIn}, kCpu, dtype, 5), labels = labels_below(4, Net::kClasses, kCpu);
    step(net, images, labels);
    const auto plain = net.gradients();
    step(net, images, labels, true);
    CHECK(net.gradients() == plain);
    step(net, images, labels, true, true);
    const auto twice = net.gradients();
    step(net, images, labels);
    step(net, images, labels, false, true);
    CHECK(net.gradients() == twice);
  }
}

TEST_CASE("recompute: works inside itself, keeps less memory, and wants its parameters listed") {
  const Device device = kCpu;
  Net net(device, DType::f32);
  const Tensor images = drawn({64, Net::kIn}, device, DType::f32, 5);
  const auto run = [&](int depth) {
    Tape tape;
    net.watch(tape);
    Tensor x = linear(images, net.w[0], net.w[1]);
    const auto inner = [&](const Tensor& t) { return net.block(net.block(t, 2), 8); };
    const std::span<const Tensor> params = std::span(net.w).subspan(2, 12);
    const std::size_t before = pool(device).bytes_live();
    if (depth == 0) x = inner(x);
    if (depth == 1) x = recompute(x, params, inner);
    if (depth == 2)
      x = recompute(x, params, [&](const Tensor& t) {
        return recompute(recompute(t, std::span(net.w).subspan(2, 6), [&](const Tensor& a) { return net.block(a, 2); }),
                         std::span(net.w).subspan(8, 6), [&](const Tensor& a) { return net.block(a, 8); });
      });
    const std::size_t kept = pool(device).bytes_live() - before;
    backward(tape, mean(x));
    return std::pair(net.gradients(), kept);
  };
  const auto plain = run(0), once = run(1), nested = run(2);
  CHECK(once.first == plain.first);
  CHECK(nested.first == plain.first);
  CHECK(once.second * 3 < plain.second);
  CHECK(nested.second == once.second);

  Tape tape;
  net.watch(tape);
  const Tensor x = linear(images, net.w[0], net.w[1]);
  const Tensor y = recompute(x, {}, [&](const Tensor& t) { return net.block(t, 2); });
  CHECK(thrown([&] { backward(tape, mean(y)); }).find("params") != std::string::npos);
  step(net, images, labels_below(64, Net::kClasses, device));  // and nothing is left in a bad state
}

TEST_CASE("gradient groups: each is announced once, last layer first, and its gradients are final then") {
  for (const bool recomputed : {false, true}) {
    CAPTURE(recomputed);
    Net net(kReference, DType::f64);
    const Tensor images = drawn({4, Net::kIn}, kReference, DType::f64, 5),
                 labels = labels_below(4, Net::kClasses, kReference);
    step(net, images, labels);
    const auto final_gradients = net.gradients();
    for (const Tensor& t : net.g) t.set_zero();
    Tape tape;
    net.watch(tape);
    Tensor spare = drawn({3}, kReference, DType::f64, 9);
    const Tensor spare_gradient = drawn({3}, kReference, DType::f64, 10);
    tape.watch(spare, spare_gradient.view(), false, 7);
    std::vector<int> order;
    tape.on_gradient_final([&](int group) {
      order.push_back(group);
      for (std::size_t i = 0; i < net.g.size(); ++i)
        if (Net::group_of(i) == group) CHECK(net.g[i].to_host() == final_gradients[i]);
      if (group == 7) CHECK(norm(spare_gradient.to_host()) == 0.0);
    });
    backward(tape, cross_entropy(net.logits(images, recomputed), labels, {}, {}));
    CHECK(order == std::vector<int>{7, 3, 2, 1, 0});
  }
}

TEST_CASE("no-grad: ops without a tape, or on a paused one, keep nothing") {
  const Net net(kCpu, DType::f32);
  const Tensor images = drawn({16, Net::kIn}, kCpu, DType::f32, 5);
  const std::size_t before = pool(kCpu).bytes_live();
  {
    const Tensor logits = net.logits(images);
    CHECK(logits.tape() == nullptr);
    CHECK(pool(kCpu).bytes_live() - before <= 4096);  // the logits alone, 320 bytes in one block
  }
  CHECK(pool(kCpu).bytes_live() == before);
  Net watched(kCpu, DType::f32);
  Tape tape;
  watched.watch(tape);
  tape.pause();
  CHECK(watched.logits(images).tape() == nullptr);
  CHECK(tape.node_count() == 0);
  tape.resume();
  CHECK(watched.logits(images).tape() == &tape);
}

TEST_CASE("memory: a step allocates nothing after the first, and leaves nothing behind") {
  Net net(kCpu, DType::bf16);
  const Tensor images = drawn({8, Net::kIn}, kCpu, DType::bf16, 5), labels = labels_below(8, Net::kClasses, kCpu);
  const std::size_t live = pool(kCpu).bytes_live();
  step(net, images, labels, false);
  step(net, images, labels, true);
  const std::int64_t allocations = pool(kCpu).allocations();
  for (int i = 0; i < 3; ++i) step(net, images, labels, i == 1);
  CHECK(pool(kCpu).allocations() == allocations);
  CHECK(pool(kCpu).bytes_live() == live);
}

TEST_CASE("memory: both sides of a residual sum share one gradient buffer") {
  const Shape shape{64, 256};
  Tensor a = drawn(shape, kCpu, DType::f32, 1), b = drawn(shape, kCpu, DType::f32, 2);
  const Tensor ga = Tensor::zeros(shape, DType::f32, kCpu), gb = Tensor::zeros(shape, DType::f32, kCpu);
  Tape tape;
  tape.watch(a, ga.view());
  tape.watch(b, gb.view());
  Tensor x = gelu(a), y = gelu(b), sum = add(x, y);
  const Tensor dy = drawn(shape, kCpu, DType::f32, 3);
  x = {}, y = {};
  pool(kCpu).reset_peak();
  const std::size_t before = pool(kCpu).bytes_live();
  backward(tape, std::span<const Tensor>(&sum, 1), std::span<const Tensor>(&dy, 1));
  CHECK(pool(kCpu).bytes_peak() == before);  // dy itself travelled to both gelus, and they write to the leaves
}

TEST_CASE("memory: a gradient handed in from outside is never written to") {
  Tensor a = drawn({3, 4}, kReference, DType::f64, 1);
  const Tensor g = Tensor::zeros({3, 4}, DType::f64, kReference);
  Tape tape;
  tape.watch(a, g.view());
  const Tensor x = gelu(a);
  std::vector<Tensor> out{add(x, x), add(x, x)};
  const std::vector<Tensor> dy{drawn({3, 4}, kReference, DType::f64, 2), drawn({3, 4}, kReference, DType::f64, 3)};
  const auto before = dy[0].to_host(), before1 = dy[1].to_host();
  backward(tape, out, dy);
  CHECK(dy[0].to_host() == before);
  CHECK(dy[1].to_host() == before1);
}

TEST_CASE("watch_nonfinite: names the first op whose result is not finite") {
  Tensor x = drawn({2, 3}, kReference, DType::f64, 1);
  const Tensor g = Tensor::zeros({2, 3}, DType::f64, kReference);
  Tape tape;
  tape.watch_nonfinite(true);
  tape.watch(x, g.view());
  mean(gelu(x));
  CHECK(tape.first_nonfinite_op().empty());
  const Tensor big = Tensor::from(std::span<const double>(std::vector<double>(6, std::numeric_limits<double>::max())),
                                  {2, 3}, DType::f64, kReference);
  mean(gelu(add(add(x, big), big)));
  CHECK(tape.first_nonfinite_op().substr(0, 3) == "add");
}

TEST_CASE("mlp: passes on a tape add up what each unit does, and how many rows; passes beside it add nothing") {
  const Device d = kReference;
  Tensor x = drawn({2, 3, 4}, d, DType::f64, 1);
  const Tensor w1 = drawn({5, 4}, d, DType::f64, 2), b1 = drawn({5}, d, DType::f64, 3);
  const Tensor w2 = drawn({2, 5}, d, DType::f64, 4), g = Tensor::zeros(x.shape(), DType::f64, d);
  const auto zeros = [&](std::int64_t n) { return Tensor::zeros({n}, DType::f64, d); };
  const UnitSums sums{zeros(5), zeros(5), zeros(5), zeros(1)};
  mlp(x, w1, b1, w2, {}, GeluKind::erf, sums);
  CHECK(sums.rows.to_host()[0] == 0.0);
  const std::vector<double> z = linear(x, w1, b1).to_host(), h = linear_gelu(x, w1, b1).to_host();
  Tape tape;
  tape.watch(x, g.view());
  for (int pass = 0; pass < 2; ++pass) mlp(x, w1, b1, w2, {}, GeluKind::erf, sums);
  CHECK(sums.rows.to_host()[0] == 12.0);
  for (std::size_t f = 0; f < 5; ++f) {
    double absolute = 0.0, positive = 0.0, value = 0.0;
    for (std::size_t r = 0; r < 6; ++r)
      absolute += std::abs(h[5 * r + f]), positive += z[5 * r + f] > 0.0, value += h[5 * r + f];
    CHECK(sums.absolute.to_host()[f] == doctest::Approx(2.0 * absolute).epsilon(1e-12));
    CHECK(sums.positive.to_host()[f] == 2.0 * positive);
    CHECK(sums.value.to_host()[f] == doctest::Approx(2.0 * value).epsilon(1e-12));
  }
  const UnitSums wrong{{}, zeros(4), {}, {}};
  CHECK_THROWS_AS(mlp(x, w1, b1, w2, {}, GeluKind::erf, wrong), Error);
}

TEST_CASE("reshape: keeps tape and gradient") {
  Tensor x = drawn({2, 6}, kReference, DType::f64, 1);
  const Tensor g = Tensor::zeros({12}, DType::f64, kReference);
  Tape tape;
  tape.watch(x, g.view());
  backward(tape, mean(add(gelu(x).reshape({3, 4}), x.reshape({3, 4})).reshape({12})));
  const Tensor h = Tensor::zeros({2, 6}, DType::f64, kReference);
  x = x.detached();
  tape.watch(x, h.view());
  backward(tape, mean(add(gelu(x), x)));
  CHECK(g.to_host() == h.to_host());
}

}  // namespace eg::test
