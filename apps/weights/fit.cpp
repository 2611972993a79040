// apps/weights/fit.cpp - a network for other inputs and outputs.
#include <cmath>

#include "apps/weights/model_weights.h"
#include "apps/weights/resample.h"

namespace eg {
namespace {

/// Whatever cannot be changed after training must be equal.
void check_same_network(const ModelWeights& w, const VitConfig& target) {
  const auto same = [&](const char* flag, const auto& theirs, const auto& wanted) {
    check(theirs == wanted, Kind::usage, [&] {
      return cat(flag, " is ", wanted, ", but ", w.source, " has ", theirs, "; leave the flag out: the file brings it");
    });
  };
  const VitConfig& c = w.config;
  check(target.activation == c.activation, Kind::usage, [&] {
    return cat(w.source, " was trained with GELU; a method with crelu has other units and cannot start from it");
  });
  same("--dim", c.dim, target.dim), same("--depth", c.depth, target.depth), same("--heads", c.heads, target.heads);
  same("--pool", pool_name(c), pool_name(target)), same("--norm-first", c.norm_first, target.norm_first);
  same("the hidden width of --mlp-ratio", c.hidden(), target.hidden());
  same("--registers", c.registers, target.registers), same("--qk-norm", c.qk_norm, target.qk_norm);
  same("--layer-scale (0: none)", c.layer_scale > 0.0, target.layer_scale > 0.0);
  same("--pos sincos", c.pos == PosEmbed::sincos, target.pos == PosEmbed::sincos);
}

Tensor like(const Tensor& t, const std::vector<double>& values, const Shape& shape) {
  return Tensor::from(values, shape, t.dtype(), kCpu);
}

Tensor with_one_channel(const Tensor& kernel) {
  const std::vector<double> from = kernel.to_host();
  const std::int64_t area = kernel.dim(2) * kernel.dim(3), channels = kernel.dim(1);
  std::vector<double> to(std::size_t(kernel.dim(0) * area), 0.0);
  for (std::int64_t i = 0; i < std::int64_t(from.size()); ++i)
    to[std::size_t(i / (channels * area) * area + i % area)] += from[std::size_t(i)];
  return like(kernel, to, {kernel.dim(0), 1, kernel.dim(2), kernel.dim(3)});
}

}  // namespace

std::string pool_name(const VitConfig& c) {
  return !c.class_token ? "mean" : c.mean_pool ? "mean-with-token" : "token";
}

ModelWeights fitted(ModelWeights w, const VitConfig& target, std::vector<std::string>* notes) {
  check_same_network(w, target);
  const auto note = [&](const std::string& text) {
    if (notes) notes->push_back(text);
  };
  VitConfig& c = w.config;
  Tensor& kernel = w.tensors.at("patch_embed.proj.weight");
  if (c.channels != target.channels) {
    check(target.channels == 1, Kind::usage, [&] {
      return cat("--channels ", target.channels, ": ", w.source, " reads ", c.channels,
                 " channels; only a change to 1 is supported, by summing the kernels");
    });
    kernel = with_one_channel(kernel);
    note(cat("patch kernels of ", c.channels, " channels summed into one"));
  }
  if (c.patch != target.patch) {
    const std::vector<double> values =
        resample_kernels(kernel.to_host(), c.patch, target.patch, kernel.dim(0) * kernel.dim(1));
    kernel = like(kernel, values, {kernel.dim(0), kernel.dim(1), target.patch, target.patch});
    note(cat("patch kernels resized from ", c.patch, " to ", target.patch, " pixels"));
  }
  const int from = c.image_size / c.patch, to = target.image_size / target.patch;
  if (from != to && c.pos == PosEmbed::learned) {
    Tensor& pos = w.tensors.at("pos_embed");
    const std::vector<double> all = pos.to_host();
    const std::int64_t prefix = pos.dim(1) - std::int64_t(from) * from;
    std::vector<double> values(all.begin(), all.begin() + prefix * c.dim);
    const std::vector<double> grid = resample_positions({all.begin() + prefix * c.dim, all.end()}, from, to, c.dim);
    values.insert(values.end(), grid.begin(), grid.end());
    pos = like(pos, values, {1, prefix + std::int64_t(to) * to, c.dim});
    note(cat("positions resampled from ", from, " x ", from, " to ", to, " x ", to));
  }
  if (c.classes != target.classes && c.classes > 0) {
    w.tensors.erase("head.weight"), w.tensors.erase("head.bias");
    note(cat("its head of ", c.classes, " classes left out: ", target.classes, " are wanted"));
  }
  if (c.classes != target.classes) c.classes = 0;
  c.channels = target.channels, c.patch = target.patch, c.image_size = target.image_size;
  c.gelu = target.gelu, c.eps = target.eps;
  return w;
}

}  // namespace eg
