// autograd/ops/cross_entropy.cpp - softmax cross-entropy with labels or soft targets.
#include "autograd/ops/cross_entropy.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

namespace {
/// Host memory can be looked at for nothing; device kernels guard themselves.
void check_labels(std::string_view op, const Tensor& labels, std::int64_t classes) {
  if (!labels.device().is_host()) return;
  const std::int32_t* label = labels.data_as<std::int32_t>();
  for (std::int64_t b = 0; b < labels.size(); ++b)
    eg::check(label[b] >= 0 && label[b] < classes, Kind::usage, [&] {
      return cat(op, ": labels[", b, "] is ", label[b], " but logits have ", classes, " classes, 0 to ", classes - 1);
    });
}
}  // namespace

void CrossEntropyLoss::check(const In& in, const Attrs& attrs) {
  const auto& [logits, labels, soft, class_mask] = in;
  require_activation(name, "logits", logits);
  require_rank(name, "logits", logits, 2, 2);
  eg::check(logits.dim(0) > 0 && logits.dim(1) > 0, Kind::shape,
            [&, &l = logits] { return cat(name, ": logits must hold at least one sample and one class, got ", l); });
  eg::check(bool(labels) != bool(soft), Kind::usage,
            [&] { return cat(name, ": give exactly one of labels and soft"); });
  if (labels) {
    require_type(name, "labels", labels, DType::i32, logits);
    require_shape(name, "labels", labels, {logits.dim(0)}, "one label per row of logits");
    check_labels(name, labels, logits.dim(1));
  } else {
    require_type(name, "soft", soft, logits.device().statistic(), logits);
    require_shape(name, "soft", soft, logits.shape(), "the shape of logits");
  }
  if (class_mask) {
    require_type(name, "class_mask", class_mask, DType::u8, logits);
    require_shape(name, "class_mask", class_mask, {logits.dim(1)}, "one entry per class");
  }
  eg::check(attrs.smoothing >= 0 && attrs.smoothing < 1, Kind::usage,
            [&] { return cat(name, ": smoothing must lie in [0, 1), got ", attrs.smoothing); });
  eg::check(attrs.divisor > 0, Kind::usage,
            [&] { return cat(name, ": divisor must be positive, got ", attrs.divisor); });
}

CrossEntropyLoss::Out CrossEntropyLoss::forward(const In& in, const Attrs& attrs, Saved* saved) {
  const auto& [logits, labels, soft, class_mask] = in;
  const std::int64_t batch = logits.dim(0);
  const DType stat = logits.device().statistic();
  const Tensor each = result(logits, {batch}, stat), loss = result(logits, {1}, stat);
  const Tensor correct = result(logits, {batch}, DType::i32), dlogits = result(logits, logits.shape());
  eg::CrossEntropy a{.logits = logits.view()};
  if (labels) a.labels = labels.view();
  if (soft) a.soft = soft.view();
  if (class_mask) a.class_mask = class_mask.view();
  a.smoothing = attrs.smoothing;
  a.scale = 1.0 / attrs.divisor;
  a.loss = each.view(), a.dlogits = dlogits.view(), a.correct = correct.view();
  EVERGRAD_CALL(logits.device(), cross_entropy, a);
  EVERGRAD_CALL(logits.device(), mean, eg::Mean{each.view(), loss.view(), double(batch) / attrs.divisor});
  if (saved) saved->dlogits = dlogits;
  return {loss, correct};
}

void CrossEntropyLoss::backward(const Out& dy, const Saved& saved, const Attrs&,
                                const std::array<Destination, arity>& to) {
  if (!to[0].wanted) return;
  EVERGRAD_CALL(dy[0].device(), scale_by, ScaleBy{saved.dlogits.view(), dy[0].view(), to[0].view, to[0].accumulate});
}

}  // namespace eg::ops
