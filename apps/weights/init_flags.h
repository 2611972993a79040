// apps/weights/init_flags.h - what --init does to the other flags of the model.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "apps/options.h"
#include "apps/weights/model_weights.h"

namespace eg {

/// With --init, every flag of the model that `sub` was not given takes the file's value. Throws Error{usage} where a flag
/// was given and the network has another value that cannot be changed; image size, patch, channels, GELU and eps can.
void apply_init(const CLI::App& sub, ModelOptions& o);

/// The weights of --init, made to fit `target`, or null without one. `o` is resolved: apply_init saw it.
std::shared_ptr<const ModelWeights> initial_weights(const ModelOptions& o, const VitConfig& target,
                                                    std::vector<std::string>* notes);

/// True for a file of weights, false for what a run wrote or what is no safetensors file.
bool is_weights_file(const std::string& path);

/// Adds --heads, --eps, --pool, --gelu and --drop: what a file does not tell.
void add_import_options(CLI::App& sub, ImportOptions& o);

}  // namespace eg
