// tests/apps/weights_files.h - the golden files of timm and Hugging Face (docs/benchmarks/timm_golden.py).
#pragma once
#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "apps/weights/model_weights.h"
#include "apps/weights/names.h"
#include "engine/safetensors.h"
#include "tests/engine/temporary_folder.h"

namespace eg::test {

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(EVERGRAD_TEST_FILES) / "cases" / (name + ".safetensors");
}
inline const char* const kGolden[] = {"timm_registers", "timm_qk_norm_mean", "hugging_face_vit"};

/// A golden file holds the weights and the case.
inline ImportOptions options_for(const std::string& name) {
  ImportOptions o;
  if (name != "timm_qk_norm_mean") o.heads = 2;
  o.drop = {"images", "labels", "logits*", "gradient/*"};
  return o;
}
inline ModelWeights read_golden(const std::string& name, std::vector<std::string>* notes = nullptr) {
  return read_weights(golden(name), options_for(name), notes);
}

inline std::vector<NamedTensor> listed(const NamedTensors& tensors) {
  std::vector<NamedTensor> list;
  for (const auto& [name, tensor] : tensors) list.push_back({name, tensor});
  return list;
}

inline bool contains(const std::string& text, const std::string& part) {
  CAPTURE(text);
  return text.find(part) != std::string::npos;
}

}  // namespace eg::test
