// apps/diagnosis/attention_maps.cpp - see attention_maps.h.
#include "apps/diagnosis/attention_maps.h"

#include <algorithm>
#include <cmath>

#include "engine/error.h"

namespace eg {
namespace {

/// Writes softmax(row) over the row and returns the largest logit.
double softmax_in_place(std::span<double> row) {
  const double largest = *std::max_element(row.begin(), row.end());
  double total = 0.0;
  for (double& x : row) total += x = std::exp(x - largest);
  for (double& x : row) x /= total;
  return largest;
}

double plogp(double p) { return p > 0.0 ? p * std::log(p) : 0.0; }

}  // namespace

AttentionMaps attention_maps(std::span<const double> qkv, std::int64_t images, std::int64_t tokens,
                             std::int64_t heads) {
  const std::int64_t packed = std::int64_t(qkv.size()) / std::max<std::int64_t>(1, images * tokens);
  const std::int64_t dim = packed / 3, width = dim / heads;
  check(images * tokens * 3 * width * heads == std::int64_t(qkv.size()), Kind::shape, [&] {
    return cat("attention_maps: ", qkv.size(), " numbers are not [", images, ", ", tokens, ", 3 x ", heads, " heads]");
  });
  AttentionMaps maps{images, heads, tokens, std::vector<double>(std::size_t(images * heads * tokens * tokens)),
                     std::vector<double>(std::size_t(heads), -INFINITY)};
  const double scale = 1.0 / std::sqrt(double(width));
  for (std::int64_t i = 0; i < images; ++i)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t q = 0; q < tokens; ++q) {
        const double* query = &qkv[std::size_t((i * tokens + q) * packed + h * width)];
        const std::span<double> row =
            std::span(maps.p).subspan(std::size_t(((i * heads + h) * tokens + q) * tokens), std::size_t(tokens));
        for (std::int64_t k = 0; k < tokens; ++k) {
          const double* key = &qkv[std::size_t((i * tokens + k) * packed + dim + h * width)];
          double dot = 0.0;
          for (std::int64_t d = 0; d < width; ++d) dot += query[d] * key[d];
          row[std::size_t(k)] = dot * scale;
        }
        double& largest = maps.largest_logit[std::size_t(h)];
        largest = std::max(largest, softmax_in_place(row));
      }
  return maps;
}

double normalised_entropy_of_logits(std::span<const double> logits) {
  if (logits.size() < 2) return 1.0;
  // Streaming, as inside a fused kernel: with the largest logit m, l = sum e^(s-m), t = sum e^(s-m) (s-m), the entropy
  // is ln l - t / l; when m grows, both are rescaled.
  double m = logits[0], l = 1.0, t = 0.0;
  for (const double s : logits.subspan(1)) {
    if (s > m) {
      const double shrink = std::exp(m - s);
      t = shrink * (t + (m - s) * l), l *= shrink, m = s;
    }
    const double e = std::exp(s - m);
    l += e, t += e * (s - m);
  }
  return (std::log(l) - t / l) / std::log(double(logits.size()));
}

double normalised_entropy(std::span<const double> probabilities) {
  if (probabilities.size() < 2) return 1.0;
  double sum = 0.0;
  for (const double p : probabilities) sum -= plogp(p);
  return sum / std::log(double(probabilities.size()));
}

double jensen_shannon(std::span<const double> a, std::span<const double> b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (plogp(a[i]) + plogp(b[i])) / 2 - plogp((a[i] + b[i]) / 2);
  return std::max(sum, 0.0);
}

HeadStatistics head_statistics(const AttentionMaps& maps, std::int64_t prefix) {
  const std::int64_t heads = maps.heads, n = maps.tokens;
  HeadStatistics s;
  s.entropy.assign(std::size_t(heads), 0.0), s.distance = s.class_self = s.entropy;
  const std::int64_t side = std::llround(std::sqrt(double(n - prefix)));
  const bool square = side * side == n - prefix;
  double cosines = 0.0;
  for (std::int64_t i = 0; i < maps.images; ++i) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const auto map = maps.map(i, h);
      double entropy = 0.0, distance = 0.0;
      for (std::int64_t q = 0; q < n; ++q) {
        const auto row = map.subspan(std::size_t(q * n), std::size_t(n));
        entropy += normalised_entropy(row);
        if (!square || q < prefix) continue;
        double sum = 0.0, mass = 0.0;  // of a patch to other patches
        for (std::int64_t k = prefix; k < n; ++k) {
          const std::int64_t a = q - prefix, b = k - prefix;
          sum += row[std::size_t(k)] * std::hypot(double(a / side - b / side), double(a % side - b % side));
          mass += row[std::size_t(k)];
        }
        if (mass > 0.0) distance += sum / mass;
      }
      s.entropy[std::size_t(h)] += entropy / double(n * maps.images);
      if (n > prefix) s.distance[std::size_t(h)] += distance / double((n - prefix) * maps.images);
      s.class_self[std::size_t(h)] += map[0] / double(maps.images);
      for (std::int64_t g = 0; g < h; ++g) {
        const auto other = maps.map(i, g);
        double ab = 0.0, aa = 0.0, bb = 0.0;
        for (std::size_t j = 0; j < map.size(); ++j) {
          const double a = map[j] - 1.0 / double(n), b = other[j] - 1.0 / double(n);
          ab += a * b, aa += a * a, bb += b * b;
        }
        if (aa > 0.0 && bb > 0.0) cosines += ab / std::sqrt(aa * bb);
      }
    }
  }
  const double pairs = double(maps.images) * double(heads * (heads - 1)) / 2;
  s.similarity = heads > 1 && pairs > 0 ? cosines / pairs : 1.0;
  return s;
}

std::vector<double> attention_drift(const AttentionMaps& now, std::span<const double> reference) {
  check(now.p.size() == reference.size(), Kind::shape, [&] {
    return cat("attention_drift compares equally large maps, not ", now.p.size(), " with ", reference.size(),
               " probabilities");
  });
  std::vector<double> drift(std::size_t(now.heads), 0.0);
  const auto n = std::size_t(now.tokens);
  const std::size_t rows = now.p.size() / std::max<std::size_t>(1, n);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t head = r / n % std::size_t(now.heads);
    drift[head] += jensen_shannon(std::span(now.p).subspan(r * n, n), reference.subspan(r * n, n));
  }
  for (double& d : drift) d /= double(rows) / double(now.heads);
  return drift;
}

}  // namespace eg
