// tests/kernels/test_tokens.cpp - images to patches, patches to sequences, sequences to what the head reads.
#include "tests/kernels/conform.h"

namespace eg::test {
namespace {

const Covers covers{"patchify_fwd", "patchify_bwd", "tokens_fwd", "tokens_bwd", "pool_fwd", "pool_bwd"};

struct Images {
  Shape shape;  // [B,C,H,W]
  int patch, size;
};

}  // namespace

TEST_CASE("patchify: forward agrees with the reference for every kind of image and set of options") {
  const std::vector<Images> all{{{0, 3, 8, 8}, 4, 8},    {{1, 1, 1, 1}, 1, 1},     {{2, 3, 8, 8}, 2, 8},
                                {{3, 2, 9, 9}, 3, 9},    {{2, 1, 31, 31}, 31, 31}, {{1, 3, 33, 33}, 11, 33},
                                {{2, 3, 32, 32}, 4, 32}, {{1, 3, 48, 48}, 16, 48}, {{2, 1, 28, 28}, 7, 28}};
  for_each_activation([&](DType t) {
    for (const Images& image : all)
      for (const DType source : {DType::u8, DType::f32, DType::bf16})
        for (int options = 0; options < 8; ++options) {
          const bool mean = (options & 1) != 0, stddev = (options & 2) != 0, crop = (options & 4) != 0;
          const int size = image.size, patch = image.patch, across = size / patch;
          const std::int64_t channels = image.shape[1];
          // Crops may hang over every edge; wherever that happens, the pixel is zero before normalisation.
          const Draw corners = [](const Key& k, std::int64_t i) {
            return i % 3 == 2 ? double(k.below(std::uint64_t(i), 2)) : double(k.below(std::uint64_t(i), 7)) - 3.0;
          };
          EVERGRAD_CONFORMS(
              patchify_fwd, PatchifyFwd, cat(image.shape, " ", patch, " from ", source, " options ", options), t,
              [&](Arguments& a) {
                PatchifyFwd f;
                f.images = a.typed("images", source, image.shape, source == DType::u8 ? integers(0, 255) : normal());
                f.out = a.x_out("out", {image.shape[0], std::int64_t(across) * across, channels * patch * patch});
                f.patch = patch, f.size = size;
                if (mean) f.mean = a.stat("mean", {channels}, between(0.3, 0.6));
                if (stddev) f.stddev = a.stat("stddev", {channels}, between(0.2, 0.4));
                if (crop) f.crop = a.typed("crop", DType::i32, {image.shape[0], 3}, corners);
                return f;
              },
              [&](const Values& in, const Values& exact) {
                // value factor + offset: the offset, mean / stddev, is the largest number on the way.
                const std::int64_t in_channel = std::int64_t(patch) * patch;
                Values bounds{{"out", {}}};
                const std::vector<double>& out = exact.at("out");
                for (std::size_t i = 0; i < out.size(); ++i) {
                  const auto c = std::size_t(std::int64_t(i) / in_channel % channels);
                  const double offset = (mean ? in.at("mean")[c] : 0.0) / (stddev ? in.at("stddev")[c] : 1.0);
                  bounds["out"].push_back(elementwise_error(std::abs(out[i]) + 2.0 * offset, out[i]));
                }
                return bounds;
              });
        }
  });
}

TEST_CASE("patchify: without normalisation the pixels of float images are copied, bit for bit") {
  EVERGRAD_CONFORMS(
      patchify_fwd, PatchifyFwd, "copy", DType::f32,
      [](Arguments& a) {
        return PatchifyFwd{.images = a.typed("images", DType::f32, {2, 3, 33, 33}),
                           .out = a.x_out("out", {2, 121, 27}),
                           .patch = 3,
                           .size = 33};
      },
      equal());
}

TEST_CASE("patchify: backward agrees with the reference, with and without accumulation") {
  const std::vector<Images> all{{{0, 3, 8, 8}, 4, 8},
                                {{1, 1, 1, 1}, 1, 1},
                                {{2, 3, 9, 9}, 3, 9},
                                {{1, 2, 33, 33}, 11, 33},
                                {{2, 3, 32, 32}, 16, 32}};
  for_each_activation([&](DType t) {
    for (const Images& image : all)
      for (const DType to : {DType::f32, DType::bf16})
        for (int options = 0; options < 4; ++options) {
          const bool stddev = (options & 1) != 0, adds = (options & 2) != 0;
          const int patch = image.patch, across = image.size / patch;
          EVERGRAD_CONFORMS(
              patchify_bwd, PatchifyBwd, cat(image.shape, " ", patch, " into ", to, " options ", options), t,
              [&](Arguments& a) {
                PatchifyBwd b;
                b.dout = a.x("dout", {image.shape[0], std::int64_t(across) * across, image.shape[1] * patch * patch});
                b.dimages = a.out("dimages", to, image.shape, adds);
                if (stddev) b.stddev = a.stat("stddev", {image.shape[1]}, between(0.2, 0.4));
                b.patch = patch, b.accumulate = adds;
                return b;
              },
              [&](const Values& in, const Values& exact) {
                Values bounds{{"dimages", {}}};
                const std::vector<double>& d = exact.at("dimages");
                for (std::size_t i = 0; i < d.size(); ++i)
                  bounds["dimages"].push_back(elementwise_error(adds ? in.at("dimages")[i] : 0.0, d[i]));
                return bounds;
              });
        }
  });
}

namespace {

struct Sequence {
  std::int64_t images, prefix, patches, width;
  std::int64_t tokens() const { return prefix + patches; }
};
const std::vector<Sequence> kSequences{{0, 1, 4, 8},   {1, 0, 1, 1},  {2, 1, 5, 7},  {3, 2, 16, 31}, {5, 1, 3, 32},
                                       {37, 5, 2, 33}, {2, 0, 9, 65}, {1, 1, 64, 8}, {1, 1, 256, 3}, {1, 1, 1024, 8}};

std::vector<double> absolute_sums(const std::vector<double>& dout, const Sequence& s, std::int64_t first,
                                  std::int64_t rows) {
  std::vector<double> sums(std::size_t(rows * s.width), 0.0);
  for (std::int64_t b = 0; b < s.images; ++b)
    for (std::size_t i = 0; i < sums.size(); ++i)
      sums[i] += std::abs(dout[std::size_t((b * s.tokens() + first) * s.width) + i]);
  return sums;
}

}  // namespace

TEST_CASE("tokens: forward agrees with the reference for positions of all tokens, of patches, of none") {
  for_each_activation([](DType t) {
    for (const Sequence& s : kSequences)
      for (const std::int64_t positions : {std::int64_t(0), s.patches, s.tokens()})
        EVERGRAD_CONFORMS(
            tokens_fwd, TokensFwd, cat(s.images, " ", s.prefix, "+", s.patches, " ", s.width, " positions ", positions),
            t,
            [&](Arguments& a) {
              TokensFwd f;
              f.patches = a.x("patches", {s.images, s.patches, s.width});
              if (s.prefix) f.prefix = a.x("prefix", {s.prefix, s.width});
              if (positions) f.pos = a.x("pos", {positions, s.width});
              f.out = a.x_out("out", {s.images, s.tokens(), s.width});
              return f;
            },
            [&](const Values&, const Values& exact) {
              Values bounds;  // one addition, rounded once; without positions a copy
              for (const double y : exact.at("out")) bounds["out"].push_back(stored(y, DType::f32));
              return positions ? bounds : Values{};
            });
  });
}

TEST_CASE("tokens: backward agrees with the reference for every set of options") {
  for_each_activation([](DType t) {
    for (const Sequence& s : kSequences)
      for (int options = 0; options < 32; ++options) {
        const auto on = [&](int bit) { return (options >> bit & 1) != 0; };
        const bool with_patches = on(0), with_prefix = on(1) && s.prefix > 0, with_pos = on(2), all_pos = on(3),
                   adds = on(4);
        const std::int64_t positions = all_pos ? s.tokens() : s.patches;
        if ((s.images > 5 || s.tokens() > 100) && options % 3) continue;
        EVERGRAD_CONFORMS(
            tokens_bwd, TokensBwd, cat(s.images, " ", s.prefix, "+", s.patches, " ", s.width, " options ", options), t,
            [&](Arguments& a) {
              TokensBwd b;
              b.dout = a.x("dout", {s.images, s.tokens(), s.width});
              if (with_patches) b.dpatches = a.x_out("dpatches", {s.images, s.patches, s.width}, adds);
              if (with_prefix) b.dprefix = a.out("dprefix", DType::f32, {s.prefix, s.width}, !adds);
              if (with_pos) b.dpos = a.out("dpos", adds ? t : DType::f32, {1, positions, s.width}, adds);
              b.accumulate = b.accumulate_pos = adds, b.accumulate_prefix = !adds;
              return b;
            },
            [&](const Values& in, const Values& exact) {
              Values bounds;
              if (with_patches && adds) bounds["dpatches"];
              for (std::size_t i = 0; with_patches && adds && i < exact.at("dpatches").size(); ++i)
                bounds["dpatches"].push_back(elementwise_error(in.at("dpatches")[i], exact.at("dpatches")[i]));
              const auto sums = [&](const char* name, std::int64_t first, std::int64_t rows, bool added) {
                bounds[name] = absolute_sums(in.at("dout"), s, first, rows);
                for (std::size_t i = 0; i < bounds[name].size(); ++i)
                  bounds[name][i] = sum_error(s.images + 1, bounds[name][i] + (added ? std::abs(in.at(name)[i]) : 0.0));
              };
              if (with_prefix) sums("dprefix", 0, s.prefix, !adds);
              if (with_pos) sums("dpos", s.tokens() - positions, positions, adds);
              return bounds;
            });
      }
  });
}

TEST_CASE("pool: forward and backward agree with the reference") {
  struct Range {
    std::int64_t images, tokens, width, first, count;
  };
  const std::vector<Range> all{{0, 4, 8, 0, 1},     {1, 1, 1, 0, 1},      {2, 5, 7, 0, 1},     {3, 17, 31, 4, 1},
                               {2, 17, 32, 1, 16},  {19, 6, 33, 2, 3},    {2, 197, 5, 0, 197}, {1, 65, 8, 1, 64},
                               {1, 257, 3, 1, 256}, {1, 1025, 8, 1, 1024}};
  for_each_activation([&](DType t) {
    for (const Range& r : all) {
      const std::string label = cat(r.images, " ", r.tokens, " ", r.width, " from ", r.first, " ", r.count);
      EVERGRAD_CONFORMS(
          pool_fwd, PoolFwd, label, t,
          [&](Arguments& a) {
            return PoolFwd{a.x("x", {r.images, r.tokens, r.width}), a.x_out("out", {r.images, r.width}), r.first,
                           r.count};
          },
          [&](const Values& in, const Values& exact) {
            if (r.count == 1) return Values{};  // a copy
            Values bounds{{"out", std::vector<double>(exact.at("out").size(), 0.0)}};
            for (std::int64_t b = 0; b < r.images; ++b)
              for (std::int64_t c = 0; c < r.width; ++c) {
                double absolute = 0.0;
                for (std::int64_t n = r.first; n < r.first + r.count; ++n)
                  absolute += std::abs(in.at("x")[std::size_t((b * r.tokens + n) * r.width + c)]);
                bounds["out"][std::size_t(b * r.width + c)] = sum_error(r.count + 1, absolute) / double(r.count);
              }
            return bounds;
          });
      for (const bool adds : {false, true})
        EVERGRAD_CONFORMS(
            pool_bwd, PoolBwd, cat(label, " adds ", adds), t,
            [&](Arguments& a) {
              return PoolBwd{a.x("dout", {r.images, r.width}), a.x_out("dx", {r.images, r.tokens, r.width}, adds),
                             r.first, r.count, adds};
            },
            [&](const Values& in, const Values& exact) {
              Values bounds{{"dx", {}}};
              const std::vector<double>& dx = exact.at("dx");
              for (std::size_t i = 0; i < dx.size(); ++i)
                bounds["dx"].push_back(elementwise_error(adds ? in.at("dx")[i] : 0.0, dx[i]));
              return bounds;
            });
    }
  });
}

}  // namespace eg::test
