// apps/weights/check_case.cpp - see check_case.h.
#include "apps/weights/check_case.h"

#include <cmath>

#include "apps/weights/infer.h"
#include "autograd/functions.h"
#include "engine/safetensors.h"

namespace eg {
namespace {

double squares(const std::vector<double>& v) {
  double sum = 0.0;
  for (const double x : v) sum += x * x;
  return sum;
}
double squared_distance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

/// "blocks.0.attn.qkv" of its weight and bias; a token is a layer of its own.
std::string layer_of(const Param& p) {
  const bool token = p.module == eg::Module::tokens;
  return token ? p.name : p.name.substr(0, p.name.rfind('.'));
}

void leave_out_key_bias(const Param& p, std::vector<double>& gradient) {
  if (p.module != eg::Module::qkv || p.shape.rank() != 1) return;
  const auto third = std::ptrdiff_t(gradient.size() / 3);
  gradient.erase(gradient.begin() + third, gradient.begin() + 2 * third);
}

NamedTensors their_gradients(const SafetensorsFile& file) {
  constexpr std::string_view prefix = "gradient/";
  NamedTensors all;
  for (const SafetensorsEntry& e : file.entries())
    if (e.name.starts_with(prefix)) all[e.name.substr(prefix.size())] = file.load(e, kCpu);
  return is_hugging_face(all) ? to_timm(std::move(all)) : all;
}

void compare_gradients(const std::vector<Param*>& params, const NamedTensors& theirs, const std::string& source,
                       CaseErrors& out) {
  std::map<std::string, std::pair<double, double>> layers;  // squared distance, squared norm
  for (const Param* p : params) {
    const auto at = theirs.find(p->name);
    check(at != theirs.end(), Kind::format, [&] { return cat(source, ": there is no gradient of ", p->name); });
    check(at->second.shape() == p->shape, Kind::shape, [&] {
      return cat(source, ": the gradient of ", p->name, " has shape ", at->second.shape(), ", expected ", p->shape);
    });
    std::vector<double> ours = p->grad.to_host(), wanted = at->second.to_host();
    leave_out_key_bias(*p, ours), leave_out_key_bias(*p, wanted);
    auto& [distance, norm] = layers[layer_of(*p)];
    distance += squared_distance(ours, wanted), norm += squares(wanted);
    ++out.gradients;
  }
  check(theirs.size() == params.size(), Kind::format, [&] {
    return cat(source, " holds ", theirs.size(), " gradients, this model has ", params.size(), " parameters");
  });
  for (const auto& [layer, sums] : layers) {
    const double error = std::sqrt(sums.first / std::max(sums.second, 1e-300));
    if (out.worst.empty() || !(error <= out.gradient)) out.gradient = error, out.worst = layer;
  }
}

}  // namespace

CaseErrors check_case(const ModelWeights& weights, const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  check(weights.config.classes > 0, Kind::usage,
        [&] { return cat(weights.source, " has no head, so there are no logits to check"); });
  Vit model = make_vit(weights.config);
  const std::vector<Param*> params = parameters(model);
  ParamArena arena;
  arena.build(params, kCpu, DType::f32);
  load_weights(weights, params);
  const Tensor images = file.load("images", kCpu), theirs = file.load("logits", kCpu);
  CaseErrors out;
  Tape tape;
  const Watched watched(tape, model, false);
  const Tensor logits = forward(model, images, {});
  check(theirs.shape() == logits.shape(), Kind::shape,
        [&] { return cat(file.source(), ": logits are ", theirs, ", ours are ", logits); });
  const std::vector<double> ours = logits.to_host(), wanted = theirs.to_host();
  out.logits = std::sqrt(squared_distance(ours, wanted) / std::max(squares(wanted), 1e-300));
  const NamedTensors gradients = their_gradients(file);
  if (gradients.empty()) return out;
  backward(tape, cross_entropy(logits, file.load("labels", kCpu), {}, {}));
  compare_gradients(params, gradients, file.source(), out);
  return out;
}

}  // namespace eg
