// layers/init.h - how the parameters of a ViT are drawn: timm's default scheme (weight_init='') for a plain ViT.
//
//   linear weights, learned positions   normal, std 0.02, cut at +-2 (in absolute value: 100 standard deviations)
//   linear biases, the head's too       zero
//   class token, register tokens        normal, std 1e-6
//   layer norms                         gamma 1, beta 0
//   layer scale                         the chosen constant
//   patch projection                    uniform within 1/sqrt(fan_in), weight and bias: timm's scheme touches linear
//                                       layers only and so leaves this convolution at PyTorch's default, Kaiming
//                                       uniform with a = sqrt(5) (He et al. 2015, arXiv:1502.01852)
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "engine/rng.h"
#include "layers/param.h"

namespace eg {

inline constexpr double kLinearStd = 0.02, kTokenStd = 1e-6;

inline Init init_linear() { return {Init::Rule::trunc_normal, kLinearStd}; }
inline Init init_position() { return {Init::Rule::trunc_normal, kLinearStd}; }
inline Init init_token() { return {Init::Rule::normal, kTokenStd}; }
/// Weight and bias of the patch projection; fan_in = channels x patch x patch.
Init init_patch_projection(std::int64_t fan_in);

/// `count` values on the host, in double. Value i is a pure function of the key and i, so it does not depend on the
/// number of threads, nor on the device that the values go to. Throws Error{usage} for a negative or non-finite scale.
std::vector<double> draw(const Init& init, std::int64_t count, Key key);
/// The values of that draw at the places `which`, and only those are computed.
std::vector<double> draw(const Init& init, std::int64_t count, Key key, std::span<const std::int64_t> which);

}  // namespace eg
