// autograd/ops/prepend_prompts.cpp - chosen prompts in front of the tokens.
#include "autograd/ops/prepend_prompts.h"

#include "autograd/ops/checks.h"

namespace eg::ops {

namespace {
/// Host memory can be looked at for nothing; what match_prompts writes on a device is always in range.
void check_chosen(std::string_view op, const Tensor& chosen, std::int64_t prompts) {
  if (!chosen.device().is_host()) return;
  const std::int32_t* const index = chosen.data_as<std::int32_t>();
  for (std::int64_t i = 0; i < chosen.size(); ++i)
    eg::check(index[i] >= 0 && index[i] < prompts, Kind::usage, [&] {
      return cat(op, ": chosen[", i, "] is ", index[i], " but there are ", prompts, " prompts, 0 to ", prompts - 1);
    });
}
}  // namespace

void PrependPrompts::check(const In& in, const Attrs& attrs) {
  const auto& [x, prompts, chosen] = in;
  require_activation(name, "x", x);
  require_rank(name, "x", x, 3, 3);
  require_like(name, "prompts", prompts, x);
  require_rank(name, "prompts", prompts, 3, 3);
  require_shape(name, "prompts", prompts, {prompts.dim(0), prompts.dim(1), x.dim(2)}, "as wide as x");
  require_type(name, "chosen", chosen, DType::i32, x);
  require_shape(name, "chosen", chosen, {x.dim(0), attrs.select}, "a row for each image of x, as long as select");
  check_chosen(name, chosen, prompts.dim(0));
}

PrependPrompts::Out PrependPrompts::forward(const In& in, const Attrs&, Saved* saved) {
  const auto& [x, prompts, chosen] = in;
  const Tensor out = result(x, {x.dim(0), chosen.dim(1) * prompts.dim(1) + x.dim(1), x.dim(2)});
  if (out.size() != 0)
    EVERGRAD_CALL(out.device(), prompt_prepend_fwd,
                  PromptPrependFwd{x.view(), prompts.view(), chosen.view(), out.view()});
  if (saved) *saved = {x.shape(), prompts.shape(), chosen};
  return {out};
}

void PrependPrompts::backward(const Out& dy, const Saved& saved, const Attrs&,
                              const std::array<Destination, arity>& to) {
  const Device device = dy[0].device();
  if (to[0].wanted && saved.x.size() != 0)
    EVERGRAD_CALL(
        device, tokens_bwd,
        TokensBwd{.dout = dy[0].view(), .dpatches = viewed(to[0].view, saved.x), .accumulate = to[0].accumulate});
  if (to[1].wanted)
    EVERGRAD_CALL(
        device, prompt_prepend_bwd,
        PromptPrependBwd{dy[0].view(), saved.chosen.view(), viewed(to[1].view, saved.prompts), to[1].accumulate});
}

}  // namespace eg::ops
