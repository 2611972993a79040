// layers/patch_embed.cpp - patches, prefix tokens, positions.
#include "layers/patch_embed.h"

#include <cmath>

#include "layers/init.h"

namespace eg {
namespace {

Param token_param(const std::string& name, const Shape& shape, Init init) {
  return {.name = name,
          .role = Role::embedding,
          .module = Module::tokens,
          .shape = shape,
          .init = init,
          .fan_in = shape.cols()};
}

/// The positions as a matrix [positions,C]; empty handle never.
Tensor positions(PatchEmbed& e, const VitConfig& c, DType activation, Device device) {
  if (e.pos_embed) return e.pos_embed->value.reshape({e.pos_embed->shape[1], c.dim});
  if (!e.sincos || !(e.sincos.device() == device) || e.sincos.dtype() != activation)
    e.sincos = Tensor::from(sincos_positions(c.image_size / c.patch, c.dim), {c.patches(), c.dim}, activation, device);
  return e.sincos;
}

}  // namespace

std::vector<double> sincos_positions(int grid, int dim) {
  check(grid > 0 && dim > 0 && dim % 4 == 0, Kind::usage,
        [&] { return cat("sine-cosine positions need a width that 4 divides, got ", dim, " (grid ", grid, ")"); });
  const std::int64_t quarter = dim / 4;
  std::vector<double> table(static_cast<std::size_t>(std::int64_t(grid) * grid * dim), 0.0);
  for (std::int64_t row = 0; row < grid; ++row)
    for (std::int64_t column = 0; column < grid; ++column)
      for (std::int64_t k = 0; k < quarter; ++k) {
        const double omega = std::pow(10000.0, -double(k) / double(quarter));
        double* const at = table.data() + (row * grid + column) * dim + k;
        at[0] = std::sin(double(column) * omega), at[quarter] = std::cos(double(column) * omega);
        at[2 * quarter] = std::sin(double(row) * omega), at[3 * quarter] = std::cos(double(row) * omega);
      }
  return table;
}

PatchEmbed make_patch_embed(const VitConfig& c) {
  PatchEmbed e;
  const std::int64_t values = std::int64_t(c.channels) * c.patch * c.patch;
  e.proj = make_linear("patch_embed.proj", c.dim, values, Module::patch_embed, -1);
  e.proj.weight.shape = {c.dim, c.channels, c.patch, c.patch};
  e.proj.weight.role = Role::embedding;
  e.proj.weight.init = e.proj.bias.init = init_patch_projection(values);
  if (c.class_token) e.cls_token = token_param("cls_token", {1, 1, c.dim}, init_token());
  if (c.registers > 0) e.reg_token = token_param("reg_token", {1, c.registers, c.dim}, init_token());
  // With registers only the patches have positions (timm's no_embed_class, which its register models set).
  const std::int64_t rows = c.registers > 0 ? c.patches() : c.tokens() - c.prompt_tokens();
  if (c.pos == PosEmbed::learned) e.pos_embed = token_param("pos_embed", {1, rows, c.dim}, init_position());
  return e;
}

Tensor forward(PatchEmbed& e, const VitConfig& c, const Tensor& images, const Tensor& mean, const Tensor& stddev,
               const Tensor& crop) {
  const Tensor& w = e.proj.weight.value;
  const DType activation = w.dtype();
  const Tensor patches = patchify(images, c.patch, c.image_size, activation, mean, stddev, crop);
  // A convolution whose stride is its kernel is a matrix product on the patches, with the weight read as a matrix.
  const Tensor embedded = linear(patches, w.reshape({c.dim, w.size() / c.dim}), e.proj.bias.value);
  const Tensor pos = positions(e, c, activation, images.device());
  const Tensor cls = e.cls_token ? e.cls_token->value.reshape({1, c.dim}) : Tensor{};
  if (!e.reg_token) return tokens(embedded, cls, pos);
  const Tensor x = tokens(tokens(embedded, {}, pos), e.reg_token->value.reshape({c.registers, c.dim}), {});
  return cls ? tokens(x, cls, {}) : x;
}

}  // namespace eg
