// apps/explain/trace_forward.cpp - what one image becomes on its way to the loss.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "apps/diagnosis/attention_maps.h"
#include "apps/explain/trace_parts.h"
#include "autograd/functions.h"

namespace eg::traced {

std::string text_of(double x) {
  char text[32];
  std::snprintf(text, sizeof text, std::abs(x) < 0.001 && x != 0.0 ? "%.3e" : "%.4f", x);
  return text;
}
double norm(const List& v) { return std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0)); }
List part(const List& v, std::int64_t begin, std::int64_t count) {
  return {v.begin() + begin, v.begin() + begin + count};
}

List softmax(const List& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  List p;
  for (const double x : logits) p.push_back(std::exp(x - largest));
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= total;
  return p;
}

namespace {

constexpr int kHead = 0;
constexpr std::int64_t kPlace = 27;  // the patch that is followed: row 3, column 3 of 8 x 8

Tensor image_of(const Tensor& t) { return t.slice(kFollowed, 1); }

}  // namespace

Tensor forward_seen(Trainer& trainer, const StepInputs& in, Seen& seen) {
  Vit& model = trainer.model();
  VitContext c = trainer.context(true, in.crop);
  seen.tokens = image_of(forward(model.embed, model.config, in.images, c.mean, c.stddev, in.crop)).to_host();
  VitProbe probe;
  probe.qkv = [&](int, const Tensor& t) { seen.qkv.push_back(image_of(t).to_host()); };
  probe.hidden = [&](int, const Tensor& t) { seen.hidden.push_back(image_of(t).to_host()); };
  probe.tokens = [&](int, const Tensor& t) { seen.after.push_back(image_of(t).to_host()); };
  probe.features = [&](const Tensor& t) { seen.features = image_of(t).to_host(); };
  c.probe = &probe;
  const Tensor logits = forward(model, in.images, c);
  seen.logits = image_of(logits).to_host();
  const Tensor loss = cross_entropy(logits, in.labels, {}, {});
  seen.loss = loss.to_host()[0];
  return loss;
}

void show_tokens(Page& page, Trainer& trainer, const StepInputs& in, const Seen& seen) {
  const VitConfig& c = trainer.model().config;
  const VitContext context = trainer.context(true, in.crop);
  const List patches =
      image_of(patchify(in.images, c.patch, c.image_size, c.precision, context.mean, context.stddev, in.crop))
          .to_host();
  const std::int64_t values = std::int64_t(c.channels) * c.patch * c.patch;
  page.section("patches",
               cat(c.patches(), " squares of ", c.patch, " x ", c.patch, " pixels, ", values, " numbers each"));
  page.list(cat("patch ", kPlace, ", its first values"), part(patches, kPlace * values, 4));
  page.section("tokens",
               cat("a matrix makes ", c.dim, " numbers of each, a position is added, the class token comes first"));
  page.list(cat("token of patch ", kPlace, ", first values"), part(seen.tokens, (kPlace + 1) * c.dim, 4));
  page.number("its length", norm(part(seen.tokens, (kPlace + 1) * c.dim, c.dim)));
  page.list("class token, its first values", part(seen.tokens, 0, 4));
}

void show_attention(Page& page, const VitConfig& c, const Seen& seen) {
  const int block = c.depth - 1;
  const std::int64_t n = c.tokens(), width = c.dim / c.heads, packed = 3 * c.dim;
  const List& qkv = seen.qkv[std::size_t(block)];
  page.section("attention", cat("head ", kHead, " of block ", block, ", asked by the class token"));
  List logits;
  for (std::int64_t k = 0; k < n; ++k) {
    double dot = 0.0;
    for (std::int64_t d = 0; d < width; ++d)
      dot += qkv[std::size_t(kHead * width + d)] * qkv[std::size_t(k * packed + c.dim + kHead * width + d)];
    logits.push_back(dot / std::sqrt(double(width)));
  }
  const List p = softmax(logits);
  page.list("query, its first values", part(qkv, kHead * width, 4));
  page.list(cat("key of patch ", kPlace), part(qkv, (kPlace + 1) * packed + c.dim + kHead * width, 4));
  page.number("query . key / sqrt(D)", logits[kPlace + 1]);
  page.list("the row of logits, first tokens", part(logits, 0, 6));
  page.list("its softmax, first tokens", part(p, 0, 6));
  page.number(cat("share of patch ", kPlace), p[kPlace + 1]);
  std::vector<std::size_t> order(p.size() - 1);
  std::iota(order.begin(), order.end(), std::size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a + 1] > p[b + 1]; });
  List most;
  for (int i = 0; i < 4; ++i) most.push_back(p[order[std::size_t(i)] + 1]);
  page.words("patches with the largest shares", cat(order[0], ", ", order[1], ", ", order[2], ", ", order[3]));
  page.list("these shares", most);
  page.number("entropy over ln N (1: even)", normalised_entropy(p));
}

void show_mlp(Page& page, const VitConfig& c, const Seen& seen) {
  const int block = c.depth - 1;
  const List hidden = part(seen.hidden[std::size_t(block)], 0, c.hidden());
  page.section("MLP", cat("the class token's ", c.hidden(), " hidden units in block ", block));
  page.list("before GELU, the first units", part(hidden, 0, 4));
  List gelu;
  for (int i = 0; i < 4; ++i)
    gelu.push_back(hidden[std::size_t(i)] * 0.5 * std::erfc(-hidden[std::size_t(i)] / std::sqrt(2.0)));
  page.list("after GELU", gelu);
  page.whole("units above 0", std::count_if(hidden.begin(), hidden.end(), [](double x) { return x > 0.0; }));
  page.list(
      "length of the class token by block",
      {norm(part(seen.tokens, 0, c.dim)), norm(part(seen.after[0], 0, c.dim)), norm(part(seen.after[1], 0, c.dim))});
}

void show_loss(Page& page, const Seen& seen, std::int32_t label, double divisor) {
  page.section("loss", "one logit per class, softmax, and minus the logarithm of the label's probability");
  page.list("what the head reads, first values", part(seen.features, 0, 4));
  page.list("logits", seen.logits);
  List p = softmax(seen.logits);
  page.list("probabilities", p);
  page.number("loss of this image", -std::log(p[std::size_t(label)]));
  page.number("mean loss of the batch", seen.loss);
  p[std::size_t(label)] -= 1.0;
  for (double& x : p) x /= divisor;
  page.list("d loss / d logits", p);
}

}  // namespace eg::traced
