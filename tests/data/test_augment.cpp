// tests/data/test_augment.cpp - random changes of images and fixed maps of a task: properties, not pixels.
#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "data/transform.h"
#include "tests/data/files.h"

using namespace eg;
using namespace eg::test;

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes ramp(ImageFormat f) {
  Bytes b(std::size_t(f.bytes()));
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = std::uint8_t(i * 37 + i / 7);
  return b;
}

Bytes mapped(TransformKind kind, double amount, ImageFormat f, Bytes image, std::uint64_t seed = 1,
             std::uint32_t task = 0, std::uint64_t image_key = 0) {
  Transform t;
  t.kind = kind, t.amount = amount, t.patch = 4, t.seed = seed, t.stream = task;
  Bytes scratch;
  PreparedTransform(t, f).apply(image.data(), image_key, scratch);
  return image;
}

template <class Values>
Values sorted(Values b) {
  std::sort(b.begin(), b.end());
  return b;
}

constexpr ImageFormat kSmall{3, 8};

}  // namespace

TEST_CASE("augment: crops and flips stay in range, take every value and depend on the sample's number only") {
  const AugmentConfig c = parse_augment("crop-flip", 32);
  CHECK(c.crop_padding == 4);
  std::set<int> tops, lefts, flips;
  int equal = 0;
  for (std::uint64_t s = 0; s < 600; ++s) {
    const Crop crop = draw_crop(c, 1, 0, s);
    equal += crop[0] == crop[1];
    CHECK(std::abs(crop[0]) <= 4);
    CHECK(std::abs(crop[1]) <= 4);
    tops.insert(crop[0]), lefts.insert(crop[1]), flips.insert(crop[2]);
    CHECK(crop == draw_crop(c, 1, 0, s));
  }
  CHECK(equal < 120);  // 600 draws of probability 1/9: mean 67, standard deviation 7.7
  CHECK(tops.size() == 9);
  CHECK(lefts.size() == 9);
  CHECK(flips == std::set<int>{0, 1});
  CHECK(draw_crop(parse_augment("none", 32), 1, 0, 5) == Crop{0, 0, 0});
  CHECK(draw_crop(parse_augment("flip", 32), 1, 0, 5)[0] == 0);
  CHECK(contains(error_text(Kind::usage, [] { parse_augment("rotate", 32); }), "crop-flip"));
}

TEST_CASE("augment: a crop moves pixels and fills with black, a flip mirrors") {
  const ImageFormat f{1, 3};
  const Bytes in = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  Bytes out(9);
  apply_crop({1, -1, 0}, f, in.data(), out.data());
  CHECK(out == Bytes{0, 4, 5, 0, 7, 8, 0, 0, 0});
  apply_crop({0, 0, 1}, f, in.data(), out.data());
  CHECK(out == Bytes{3, 2, 1, 6, 5, 4, 9, 8, 7});
}

TEST_CASE("augment: mixup and CutMix weigh label and pixels alike") {
  AugmentConfig c;
  c.mixup = 0.5;
  double mean = 0.0;
  for (std::uint64_t s = 0; s < 2000; ++s) {
    const Mix m = draw_mix(c, 1, 0, s, kSmall);
    CHECK_FALSE(m.cut);
    CHECK((m.label_weight >= 0.0 && m.label_weight <= 1.0));
    mean += m.label_weight / 2000;
  }
  CHECK(std::abs(mean - 0.5) < 0.04);  // Beta(.5, .5): sd 0.35, five standard errors of 2000 draws
  Mix half;
  half.keep = half.label_weight = 0.5;
  Bytes a(std::size_t(kSmall.bytes()), 100), b(a.size(), 51);
  apply_mix(half, kSmall, a.data(), b.data());
  CHECK(std::all_of(a.begin(), a.end(), [](int v) { return v == 76; }));  // 75.5, rounded to nearest
  c.mixup = 0.0, c.cutmix = 1.0;
  for (std::uint64_t s = 0; s < 200; ++s) {
    const Mix m = draw_mix(c, 1, 0, s, kSmall);
    CHECK(m.cut);
    Bytes own(std::size_t(kSmall.bytes()), 0), partner(own.size(), 1);
    apply_mix(m, kSmall, own.data(), partner.data());
    const double share = std::accumulate(own.begin(), own.end(), 0.0) / double(own.size());
    CHECK(share == doctest::Approx(1.0 - m.label_weight));
  }
}

TEST_CASE("augment: RandAugment changes images, the same way for the same sample, and stays inside the image") {
  AugmentConfig c;
  c.randaugment_ops = 2;
  const ImageFormat f{3, 16};
  int changed = 0;
  Bytes scratch;
  for (std::uint64_t s = 0; s < 200; ++s) {
    Bytes a = ramp(f), b = a;
    a.resize(a.size() + 64, 0xcd);
    randaugment(c, 1, 0, s, f, a.data(), scratch);
    CHECK(std::all_of(a.end() - 64, a.end(), [](std::uint8_t v) { return v == 0xcd; }));
    a.erase(a.end() - 64, a.end());
    changed += a != b;
    randaugment(c, 1, 0, s, f, b.data(), scratch);
    CHECK(a == b);
  }
  CHECK(changed > 120);
  c.randaugment_ops = 17;
  error_text(Kind::usage, [&] { check_augment(c, f); });
  c.randaugment_ops = 0, c.crop_padding = 17;
  error_text(Kind::usage, [&] { check_augment(c, f); });
}

TEST_CASE("transform: permutations move pixels and invent none; patches keep what they should") {
  const ImageFormat f{1, 16};
  const Bytes in = ramp(f);
  for (const TransformKind k :
       {TransformKind::permute_pixels, TransformKind::permute_in_patch, TransformKind::permute_patches}) {
    const Bytes out = mapped(k, 0, f, in);
    CHECK(out != in);
    CHECK(sorted(out) == sorted(in));
    CHECK(out == mapped(k, 0, f, in));
    CHECK(out != mapped(k, 0, f, in, 1, 1));
    CHECK(out != mapped(k, 0, f, in, 2, 0));
  }
  const auto patch = [&](const Bytes& b, std::size_t py, std::size_t px) {
    std::string p;
    for (std::size_t y = 0; y < 4; ++y)
      for (std::size_t x = 0; x < 4; ++x) p += char(b[(py * 4 + y) * 16 + px * 4 + x]);
    return p;
  };
  const Bytes inside = mapped(TransformKind::permute_in_patch, 0, f, in),
              whole = mapped(TransformKind::permute_patches, 0, f, in);
  std::set<std::string> before, after;
  for (std::size_t y = 0; y < 4; ++y)
    for (std::size_t x = 0; x < 4; ++x) {
      CHECK(sorted(patch(inside, y, x)) == sorted(patch(in, y, x)));
      before.insert(patch(in, y, x)), after.insert(patch(whole, y, x));
    }
  CHECK(before == after);
  CHECK(contains(error_text(Kind::usage,
                            [&] {
                              mapped(TransformKind::permute_patches, 0, {1, 18}, Bytes(18 * 18));
                            }),
                 "18"));
  // Colour planes move together.
  Bytes rgb;
  for (int c = 0; c < 3; ++c) rgb.insert(rgb.end(), in.begin(), in.end());
  const Bytes moved = mapped(TransformKind::permute_pixels, 0, {3, 16}, rgb);
  CHECK(Bytes(moved.begin(), moved.begin() + 256) == Bytes(moved.begin() + 256, moved.begin() + 512));
}

TEST_CASE("transform: domains do what their name says") {
  const Bytes in = ramp(kSmall);
  CHECK(mapped(TransformKind::none, 0, kSmall, in) == in);
  CHECK(mapped(TransformKind::rotate, 0, kSmall, in) == in);
  CHECK(mapped(TransformKind::blur, 0, kSmall, in) == in);
  CHECK(mapped(TransformKind::noise, 0, kSmall, in) == in);
  CHECK(mapped(TransformKind::contrast, 1, kSmall, in) == in);
  // Half a turn is the image read backwards.
  Bytes back;
  for (std::size_t c = 0; c < 3; ++c)
    back.insert(back.end(), std::make_reverse_iterator(in.begin() + std::ptrdiff_t(c * 64 + 64)),
                std::make_reverse_iterator(in.begin() + std::ptrdiff_t(c * 64)));
  CHECK(mapped(TransformKind::rotate, 180, kSmall, in) == back);
  // A quarter turn is clockwise: the bottom left corner comes to the top left.
  const Bytes quarter = mapped(TransformKind::rotate, 90, kSmall, in);
  for (std::size_t y = 0; y < 8; ++y)
    for (std::size_t x = 0; x < 8; ++x) CHECK(quarter[y * 8 + x] == in[(7 - x) * 8 + y]);
  CHECK(mapped(TransformKind::rotate, 270, kSmall, quarter) == in);
  const Bytes inverted = mapped(TransformKind::invert, 0, kSmall, in);
  for (std::size_t i = 0; i < in.size(); ++i) CHECK(inverted[i] == 255 - in[i]);
  // Contrast 0 leaves the mean; blur keeps a flat image and shrinks the spread of another.
  const Bytes grey = mapped(TransformKind::contrast, 0, kSmall, in);
  CHECK(std::adjacent_find(grey.begin(), grey.begin() + 64, std::not_equal_to<>()) == grey.begin() + 64);
  const double mean = std::accumulate(in.begin(), in.begin() + 64, 0.0) / 64;
  CHECK(std::abs(grey[0] - mean) <= 0.5);
  CHECK(mapped(TransformKind::blur, 2, kSmall, Bytes(192, 80)) == Bytes(192, 80));
  const auto spread = [](const Bytes& b) {
    double sum = 0, sq = 0;
    for (const double v : b) sum += v, sq += v * v;
    return sq / double(b.size()) - sum * sum / double(b.size() * b.size());
  };
  CHECK(spread(mapped(TransformKind::blur, 2, kSmall, in)) < 0.5 * spread(in));
  // Hue leaves grey alone; a third of a turn makes red green, green blue and blue red.
  const auto planes = [](std::uint8_t r, std::uint8_t g, std::uint8_t b) {
    Bytes image(64, r);
    image.insert(image.end(), 64, g);
    image.insert(image.end(), 64, b);
    return image;
  };
  CHECK(mapped(TransformKind::hue, 120, kSmall, planes(200, 10, 30)) == planes(30, 200, 10));
  CHECK(mapped(TransformKind::hue, 120, kSmall, Bytes(192, 90)) == Bytes(192, 90));
  // Noise: keyed by the image, of the asked size.
  const Bytes flat(192, 128), noisy = mapped(TransformKind::noise, 0.1, kSmall, flat, 1, 0, 3);
  CHECK(noisy == mapped(TransformKind::noise, 0.1, kSmall, flat, 1, 0, 3));
  CHECK(noisy != mapped(TransformKind::noise, 0.1, kSmall, flat, 1, 0, 4));
  CHECK(std::sqrt(spread(noisy)) ==
        doctest::Approx(25.5).epsilon(0.3));  // 192 draws: relative error 1/sqrt(384), five of them
}

TEST_CASE("channel statistics: exact for a known set, the same for any number of threads") {
  const TemporaryFolder f;
  write_file(f / "train.bin", std::string(2, '\0') + std::string(1024, char(0)) + std::string(1024, char(255)) +
                                  std::string(1024, char(51)));
  write_file(f / "test.bin", cifar_record({0, 0}, 0));
  const auto d = open_cifar100(f.path());
  SampleSet one;
  one.indices = {0}, one.labels = {0};
  const ChannelStats s = channel_stats(*d, one, {3, 32});
  CHECK(s.mean[0] == 0.0);
  CHECK(s.mean[1] == doctest::Approx(1.0));
  CHECK(s.mean[2] == doctest::Approx(0.2));
  for (const double v : s.stddev) CHECK(v == doctest::Approx(1.0 / 255));  // never zero
  SampleSet other;
  other.split = Split::test, other.indices = {0}, other.labels = {0};
  const ChannelStats ramps = channel_stats(*d, other, {3, 32});
  // Every plane holds each of 0..255 four times: mean 127.5, variance (256^2 - 1) / 12.
  for (const double v : ramps.mean) CHECK(v == doctest::Approx(0.5));
  for (const double v : ramps.stddev) CHECK(v == doctest::Approx(std::sqrt(65535.0 / 12.0) / 255.0));
  error_text(Kind::usage, [&] { channel_stats(*d, SampleSet{}, {3, 32}); });
}

TEST_CASE("augment: Beta's spread is right for every alpha, also where its gammas underflow") {
  for (const double alpha : {0.001, 0.1, 0.4, 1.0, 8.0}) {
    CAPTURE(alpha);
    AugmentConfig c;
    c.mixup = alpha;
    constexpr int kDraws = 4000;
    double mean = 0.0, square = 0.0, fourth = 0.0;
    for (std::uint64_t s = 0; s < kDraws; ++s) {
      const double x = draw_mix(c, 9, 0, s, kSmall).keep - 0.5;
      mean += x / kDraws, square += x * x / kDraws, fourth += x * x * x * x / kDraws;
    }
    const double variance = 0.25 / (2.0 * alpha + 1.0);  // of Beta(alpha, alpha)
    CHECK(std::abs(mean) < 5.0 * std::sqrt(variance / kDraws));
    // Five standard errors of the mean square, from the draws themselves; below alpha = 0.01 they hardly vary at all.
    CHECK(std::abs(square - variance) < 5.0 * std::sqrt((fourth - square * square) / kDraws) + 1e-12);
  }
}
