// tests/cudnn/test_plans.cpp - which attention cuDNN would compute on which GPU, found out without one: the library makes its
// plans, and compiles their kernels, for GPUs that are only described. What they compute, and how fast, is for tests/gpu.
#include <dlfcn.h>
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>

#include "cuda/device/cudnn_graph.h"
#include "engine/error.h"

using namespace eg;
using namespace eg::cuda_backend;

namespace {

/// As cuDNN writes a GPU down. The numbers are those of the data sheets and of the programming guide's table.
std::string description(const std::string& name, int version, int multiprocessors, int most_shared, std::int64_t memory,
                        int cache) {
  return cat("{\"cudaDeviceId\":0,\"deviceVer\":", version, ",\"driverVer\":13000,\"totalGlobalMem\":", memory,
             ",\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536",
             ",\"multiProcessorCount\":", multiprocessors, ",\"warpSize\":32,\"maxSharedMemoryPerBlock\":49152",
             ",\"maxSharedMemoryPerBlockOptin\":", most_shared, ",\"reservedSharedMemoryPerBlock\":1024",
             ",\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048",
             ",\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000",
             ",\"memClockRateKHz\":2619000,\"l2CacheSize\":", cache, ",\"deviceName\":\"", name, "\"}");
}
const std::string kH100 = description("NVIDIA H100 80GB HBM3", 900, 132, 232448, 85017755648, 52428800);
const std::string kA100 = description("NVIDIA A100-SXM4-80GB", 800, 108, 166912, 85094825984, 41943040);

const CudnnTarget& target(const std::string& json) {
  static const bool possible = [] {
    if (!dlopen("libcuda.so.1", RTLD_NOW)) {
      std::printf("SKIPPED: no libcuda.so.1; run this by ctest, which puts a pretended one into LD_LIBRARY_PATH\n");
      std::fflush(stdout);
      std::_Exit(77);
    }
    if (cudnnGetVersion() < kOldestCudnn) {
      std::printf("SKIPPED: cuDNN %zu is older than %zu\n", std::size_t(cudnnGetVersion()), kOldestCudnn);
      std::fflush(stdout);
      std::_Exit(77);
    }
    return true;
  }();
  REQUIRE(possible);
  static const CudnnTarget h100 = cudnn_target(kH100), a100 = cudnn_target(kA100);
  return json == kH100 ? h100 : a100;
}

/// Images and heads are few: they multiply the grid and the workspace, not the kernel.
constexpr std::int64_t kImages = 2, kHeads = 3;

void offers(const std::string& json, const char* name) {
  std::printf("%s, %lld images, %lld heads: bytes of workspace of the first plan\n", name, (long long)kImages,
              (long long)kHeads);
  const CudnnTarget& gpu = target(json);
  for (const std::int64_t tokens : {65, 197, 257})
    for (const std::int64_t width : {32, 64, 80, 96, 128}) {
      CAPTURE(tokens);
      CAPTURE(width);
      const CudnnAttention a{kImages, tokens, kHeads, width};
      const auto forward = cudnn_plans(cudnn_attention_fwd(a, gpu), gpu, 1);
      const auto backward = cudnn_plans(cudnn_attention_bwd(a, gpu), gpu, 1);
      REQUIRE(forward.size() == 1);
      REQUIRE(backward.size() == 1);
      std::printf("  %3lld tokens, head %3lld: forward %zu (engine %lld), backward %zu (engine %lld)\n",
                  (long long)tokens, (long long)width, forward[0].workspace, (long long)forward[0].engine,
                  backward[0].workspace, (long long)backward[0].engine);
      // dS of all heads in bf16, tokens rounded up to tiles: what the deterministic way costs.
      const std::size_t scores = std::size_t(kImages * kHeads * tokens * tokens) * 2;
      CHECK(backward[0].workspace >= scores);
      CHECK(backward[0].workspace <= scores * 4 + 4096);
    }
}

}  // namespace

TEST_CASE("cudnn: plans for attention forward and backward on an H100 (sm_90)") { offers(kH100, "sm_90"); }
TEST_CASE("cudnn: plans for attention forward and backward on an A100 (sm_80)") { offers(kA100, "sm_80"); }

TEST_CASE("cudnn: what a GPU cannot do is not offered, and a description that is none is refused with the remedy") {
  CHECK(cudnn_plans(cudnn_attention_bwd({2, 65, 3, 512}, target(kA100)), target(kA100), 1).empty());
  std::string text;
  try {
    cudnn_target("{\"deviceVer\":");
  } catch (const Error& e) { text = e.what(); }
  CHECK(text.find("cuDNN: describing attention") != std::string::npos);
  CHECK(text.find("--kernels hand does without it") != std::string::npos);
}
