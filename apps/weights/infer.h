// apps/weights/infer.h - which network a set of tensors belongs to.
#pragma once
#include <string>
#include <vector>

#include "apps/weights/model_weights.h"
#include "apps/weights/names.h"

namespace eg {

/// Reads sizes and switches off the tensors' names (timm's) and shapes, and what they leave open from `options`; each
/// such choice adds a sentence to `notes`. Then brings the tensors into evergrad's form, which computes the same: a class
/// token without a position gets one of zero, positions of registers are added to them, an fc_norm that follows the choice
/// of the class token is called norm. Throws Error{format} that lists every tensor that is missing, unknown or of a wrong
/// shape, under the names of the file.
VitConfig infer_config(NamedTensors& tensors, const ImportOptions& options, bool hugging_face,
                       const std::string& source, std::vector<std::string>* notes);

/// "a, b, c and 9 more": at most 12.
std::string some_of(const std::vector<std::string>& items);

}  // namespace eg
