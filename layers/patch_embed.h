// layers/patch_embed.h - from pixels to the first token matrix: every patch through one linear map, prefix tokens in
// front, positions added (Dosovitskiy et al. 2020, arXiv:2010.11929).
#pragma once
#include <optional>

#include "layers/linear.h"
#include "layers/vit_config.h"

namespace eg {

/// What turns images into tokens.
struct PatchEmbed {
  std::optional<Param> cls_token, reg_token, pos_embed;  // [1,1,C], [1,registers,C], [1,positions,C]
  Linear proj;                                           // weight [C, channels, P, P], as a convolution stores it
  Tensor sincos;                                         // fixed positions [patches,C], made on first use
};

/// Forward order, which is timm's order.
template <class F>
void visit_params(PatchEmbed& e, F&& f) {
  if (e.cls_token) f(*e.cls_token);
  if (e.reg_token) f(*e.reg_token);
  if (e.pos_embed) f(*e.pos_embed);
  visit_params(e.proj, f);
}

/// The parameters that the configuration asks for, with timm's names.
PatchEmbed make_patch_embed(const VitConfig& c);

/// images u8 or float [B,channels,S,S'] -> tokens [B,N,C]: class token, registers, patches in row order. mean and
/// stddev (statistic dtype [channels]) and crop (i32 [B,3]) may be empty.
Tensor forward(PatchEmbed& e, const VitConfig& c, const Tensor& images, const Tensor& mean, const Tensor& stddev,
               const Tensor& crop);

/// 2-D sine-cosine positions (Chen, Xie, He 2021, arXiv:2104.02057), [patches,C]: a quarter of the width each for sin
/// and cos of the column, then of the row, over wavelengths 2 pi to 20000 pi. Throws Error{usage} unless 4 divides C.
std::vector<double> sincos_positions(int grid, int dim);

}  // namespace eg
