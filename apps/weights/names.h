// apps/weights/names.h - the names that other libraries give to the parameters of a Vision Transformer.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace eg {

using NamedTensors = std::map<std::string, Tensor>;

/// True for names of Hugging Face's ViT ("vit.embeddings...", "encoder.layer.0...").
bool is_hugging_face(const NamedTensors& tensors);
/// Hugging Face's names as timm's; the separate query, key and value of a block become the thirds of one qkv. A name that
/// is not one of ViTForImageClassification keeps it, and a third without the other two keeps its own. Throws
/// Error{format} when two names mean the same tensor.
NamedTensors to_timm(NamedTensors tensors);
/// The other way round. Every name must be one that make_vit gives a plain ViT with a class token; Error{internal} names
/// one that is not.
NamedTensors to_hugging_face(const NamedTensors& tensors);
/// A name in the file for a name of timm's: what a message calls a tensor that is missing.
std::string in_file(const std::string& timm_name, bool hugging_face);

}  // namespace eg
