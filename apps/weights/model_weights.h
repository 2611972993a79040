// apps/weights/model_weights.h - a network as files carry it: the values of every parameter under timm's name, and the
// sizes and switches that go with them.
//
// A weights file is a safetensors file with timm's names, so that timm reads it as it is. Its metadata has one entry of
// ours, "evergrad": a JSON object with what shapes cannot tell (heads, pooling, GELU, eps).
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "layers/vit.h"

namespace eg {

struct ModelWeights {
  std::string source;                     // the file, for messages
  VitConfig config;                       // classes 0: there is no head
  std::map<std::string, Tensor> tensors;  // on the host, f32 or f64
};

/// Of names and bytes, as text: the same for weights that make the same run.
std::string checksum_of(const ModelWeights& weights);

/// What shapes cannot tell. Zero, negative and empty: what the file's metadata says, else timm's or Hugging Face's
/// default.
struct ImportOptions {
  int heads = 0;                  // default: width / 64, or one for each width of a q_norm
  double eps = 0.0;               // of layer norms; default 1e-6 (timm), 1e-12 (Hugging Face)
  std::string pool;               // token | mean; default: by the presence of cls_token and fc_norm
  std::string gelu;               // erf | tanh; default erf
  std::vector<std::string> drop;  // patterns of tensors in the file to leave out
};

/// As --pool says it: token, mean or mean-with-token.
std::string pool_name(const VitConfig& c);

/// Reads weights under timm's or Hugging Face's names (ViTForImageClassification), or those of a run of ours: a run
/// folder, a checkpoints folder or one checkpoint, of which the moving average is taken where there is one. F16 and BF16
/// become f32. Every choice that the file leaves open, and everything that is left out, adds a sentence to `notes`.
/// Throws Error{io|format}; tensors that are missing, unknown, of a wrong shape or not finite are all listed by name.
ModelWeights read_weights(const std::filesystem::path& path, const ImportOptions& options,
                          std::vector<std::string>* notes);

/// The same network for other inputs and outputs, with a sentence in `notes` for each change: positions resampled to the
/// target's grid, patch kernels to its patch size, three input channels summed into one, a head of another size left
/// out. Throws Error{usage} naming the flag where the target differs in anything else.
ModelWeights fitted(ModelWeights weights, const VitConfig& target, std::vector<std::string>* notes);

/// Gives parameters the values, and marks those as imported; what `weights` lacks (a head) keeps its value. The
/// arena's working copy is the caller's to refresh. Throws Error{shape|internal} when they are not for this model.
void load_weights(const ModelWeights& weights, std::span<Param* const> params);

/// Writes a weights file: timm's names and our metadata. Creates the folder. Throws Error{io}.
void write_weights(const std::filesystem::path& path, const ModelWeights& weights);
/// Writes the file that Hugging Face's ViTForImageClassification reads. Throws Error{usage} that names what it cannot
/// express.
void write_hugging_face(const std::filesystem::path& path, const ModelWeights& weights);
/// The Python expression that builds the network which reads such a file.
std::string timm_expression(const VitConfig& c);
std::string hugging_face_expression(const VitConfig& c);

}  // namespace eg
