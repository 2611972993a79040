// data/streams/images.cpp - how a task changes its images: permuted pixels, or a domain that shifts.
#include "data/streams/protocol_stream.h"
#include "engine/error.h"

namespace eg::detail {
namespace {

TransformKind permutation_kind(const std::string& name) {
  if (name == "pixels") return TransformKind::permute_pixels;
  if (name == "in-patch") return TransformKind::permute_in_patch;
  if (name == "patches") return TransformKind::permute_patches;
  fail(Kind::usage, cat("unknown input permutation '", name, "'; there are pixels, in-patch and patches"));
}

TransformKind domain_kind(const std::string& name) {
  for (const TransformKind kind : {TransformKind::rotate, TransformKind::hue, TransformKind::contrast,
                                   TransformKind::blur, TransformKind::noise, TransformKind::invert})
    if (name == to_string(kind)) return kind;
  fail(Kind::usage, cat("unknown domain '", name, "'; there are rotation, hue, contrast, blur, noise and inversion"));
}

}  // namespace

/// The domain's parameter in task t (methods.md C.2).
double ProtocolStream::amount_of(std::int64_t t) const {
  // Where task t stands between the first (0) and the last (1) task.
  const double along = c_.tasks > 1 ? double(t) / double(c_.tasks - 1) : 0.0;
  switch (domain_kind(c_.domain)) {
    case TransformKind::contrast: return 1.0 - 0.7 * along;
    case TransformKind::blur: return 2.0 * along;
    case TransformKind::noise: return 0.3 * along;
    case TransformKind::invert: return 0.0;
    default: return 360.0 * double(t) / double(c_.tasks);
  }
}

Transform ProtocolStream::transform_of(std::int64_t t) const {
  Transform f;
  f.seed = c_.seed;
  f.stream = std::uint32_t(t);
  f.patch = c_.patch;
  if (c_.protocol == Protocol::input_permutation) f.kind = permutation_kind(c_.permutation);
  if (c_.protocol != Protocol::domain) return f;
  f.kind = domain_kind(c_.domain);
  check(!c_.gradual || f.kind != TransformKind::invert, Kind::usage, [] {
    return std::string("inversion has no parameter that could shift gradually; use an abrupt shift or another domain");
  });
  if (f.kind == TransformKind::invert && t % 2 == 0) f.kind = TransformKind::none;
  f.amount = amount_of(t);
  f.gradual = c_.gradual && t > 0;
  if (t > 0) f.start = amount_of(t - 1);
  // Abrupt noise is drawn anew for each task; what grows from task to task must be the same noise throughout.
  if (c_.gradual) f.stream = 0;
  return f;
}

}  // namespace eg::detail
