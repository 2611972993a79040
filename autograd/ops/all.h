// autograd/ops/all.h - every op. Being in this list is what gets an op tested.
#pragma once
#include <type_traits>

#include "autograd/ops/add.h"
#include "autograd/ops/attention.h"
#include "autograd/ops/branch_scale.h"
#include "autograd/ops/crelu.h"
#include "autograd/ops/cross_entropy.h"
#include "autograd/ops/gelu.h"
#include "autograd/ops/layer_norm.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/linear_gelu.h"
#include "autograd/ops/match_prompts.h"
#include "autograd/ops/mean.h"
#include "autograd/ops/mlp.h"
#include "autograd/ops/patchify.h"
#include "autograd/ops/pool_tokens.h"
#include "autograd/ops/prepend_prompts.h"
#include "autograd/ops/qk_norm.h"
#include "autograd/ops/residual_layer_norm.h"
#include "autograd/ops/tokens.h"

namespace eg {

template <class... T>
struct TypeList {};

using AllOps =
    TypeList<ops::Linear, ops::LinearGelu, ops::Mlp, ops::Gelu, ops::Crelu, ops::LayerNorm, ops::ResidualLayerNorm,
             ops::Add, ops::Attention, ops::QkNorm, ops::BranchScale, ops::Patchify, ops::Tokens, ops::PoolTokens,
             ops::MatchPrompts, ops::PrependPrompts, ops::CrossEntropyLoss, ops::MeanLoss>;

/// Calls f(std::type_identity<T>) for every type of the list.
template <class... T, class F>
void for_each_type(TypeList<T...>, F&& f) {
  (f(std::type_identity<T>{}), ...);
}

}  // namespace eg
