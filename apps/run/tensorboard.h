// apps/run/tensorboard.h - a run's numbers as TensorBoard event files, for those who look at their runs there.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace eg {

/// CRC-32C (Castagnoli), as TensorBoard's records carry it.
std::uint32_t crc32c(std::string_view bytes);

/// Writes FOLDER/tensorboard/METHOD-seedN/events.out.tfevents.0.evergrad for every (method, seed) of FOLDER/metrics.jsonl:
/// every number of the tasks' lines and of the diagnoses, by task number; one tag per block. Files are replaced as a
/// whole. Returns false, and writes nothing, in a build without protobuf. Throws Error{io}.
bool write_event_files(const std::filesystem::path& folder);

}  // namespace eg
