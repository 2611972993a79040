// apps/diagnosis/attention_maps.h - what the heads of a block look at: probabilities, and numbers about them
// (methods.md D.4). Plain loops in double on the host, for a handful of images.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace eg {

/// The rows of attention of one block: p [images, heads, tokens, tokens], each row a distribution over the keys.
struct AttentionMaps {
  std::int64_t images = 0, heads = 0, tokens = 0;
  std::vector<double> p;
  std::vector<double> largest_logit;  // by head
  std::span<const double> map(std::int64_t image, std::int64_t head) const {
    return std::span(p).subspan(std::size_t((image * heads + head) * tokens * tokens), std::size_t(tokens * tokens));
  }
};

/// softmax(q k^T / sqrt(D)) from the packed qkv [images, tokens, 3 heads D], as attention reads it.
AttentionMaps attention_maps(std::span<const double> qkv, std::int64_t images, std::int64_t tokens, std::int64_t heads);

/// Entropy of softmax(logits) over ln(n): 1 for uniform attention, 0 for a single key. One key alone counts as 1.
double normalised_entropy_of_logits(std::span<const double> logits);
/// The same of probabilities.
double normalised_entropy(std::span<const double> probabilities);
/// Jensen-Shannon divergence of two distributions, in [0, ln 2].
double jensen_shannon(std::span<const double> a, std::span<const double> b);

struct HeadStatistics {
  std::vector<double> entropy;     // by head: mean normalised entropy of the rows
  std::vector<double> distance;    // by head: mean distance of attention in patches; 0 where the tokens are no square
  std::vector<double> class_self;  // by head: what the first token gives to itself
  double similarity = 0.0;         // mean cosine of the heads' maps after 1/N was subtracted; 1 for one head
};
/// `prefix`: tokens in front of the patches.
HeadStatistics head_statistics(const AttentionMaps& maps, std::int64_t prefix);

/// By head: the mean Jensen-Shannon divergence of the rows of two equally large sets of maps.
std::vector<double> attention_drift(const AttentionMaps& now, std::span<const double> reference);

}  // namespace eg
