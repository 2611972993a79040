// layers/prompt.cpp - see prompt.h.
#include "layers/prompt.h"

namespace eg {
namespace {

Param pool_param(const char* name, const Shape& shape) {
  return {.name = name,
          .role = Role::embedding,
          .module = Module::tokens,
          .shape = shape,
          .init = {Init::Rule::uniform, 0.01},
          .fan_in = shape.cols()};
}

}  // namespace

Prompts make_prompts(const VitConfig& c) {
  const PromptPool& p = c.prompts;
  return {pool_param("prompt.prompts", {p.pool, p.length, c.dim}), pool_param("prompt.keys", {p.pool, c.dim})};
}

Prompted prepend(const Prompts& p, const PromptPool& pool, const Tensor& tokens, const Tensor& query, bool training,
                 double batch) {
  const bool together = training ? pool.batchwise : pool.batchwise_test;
  const auto [loss, chosen] = match_prompts(query, p.keys.value, pool.select, together, -pool.pull / batch);
  return {prepend_prompts(tokens, p.prompts.value, chosen), loss};
}

}  // namespace eg
