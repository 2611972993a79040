// cuda/device/cudnn_graph.h - attention as cuDNN's backend describes it: graphs of operations, and plans that compute them.
// NOT RUN ON A GPU YET.
//
// Making a plan needs no GPU: it may be made for one that is only described, which is how tests/cudnn shows what the library
// offers for which shapes.
#pragma once
#include <cudnn.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace eg::cuda_backend {

/// Backward is right for every number of tokens, without masks of padding, from this version on.
inline constexpr std::size_t kOldestCudnn = 91600;

void check_cudnn(cudnnStatus_t status, const char* what);

using CudnnDescriptor = std::shared_ptr<void>;

/// What a plan is made for: a GPU, by its handle, or the description of one (`{"deviceVer":900,...}`, cuDNN's JSON).
struct CudnnTarget {
  cudnnHandle_t handle = nullptr;
  CudnnDescriptor described;
};
CudnnTarget cudnn_target(const std::string& json);

struct CudnnAttention {
  std::int64_t images = 0, tokens = 0, heads = 0, width = 0;
};

/// The tensors that a call passes. q, k, v, dq, dk, dv lie packed in [B,N,3,H,D]; out and dout are [B,N,H,D], lse and delta
/// [B,H,N] in fp32. Scale and one are numbers that the library reads from the host.
enum CudnnTensor : std::int64_t {
  kCudnnQ = 1,
  kCudnnK,
  kCudnnV,
  kCudnnOut,
  kCudnnLse,
  kCudnnScale,
  kCudnnDout,
  kCudnnDq,
  kCudnnDk,
  kCudnnDv,
  kCudnnDelta,
  kCudnnOne,
  kCudnnInner  // and on: what exists only between two operations
};

/// A graph and what it consists of.
struct CudnnGraph {
  std::vector<CudnnDescriptor> parts;
  CudnnDescriptor graph;
};
CudnnGraph cudnn_attention_fwd(const CudnnAttention& a, const CudnnTarget& target);
CudnnGraph cudnn_attention_bwd(const CudnnAttention& a, const CudnnTarget& target);

struct CudnnPlan {
  CudnnDescriptor config, plan;
  std::size_t workspace = 0;  // bytes
  std::int64_t engine = 0;
};
/// At most so many, in the order of the library's heuristic; none when it does not take the graph on its target. Engines that
/// say of themselves that they do not repeat their bits are left out.
std::vector<CudnnPlan> cudnn_plans(const CudnnGraph& graph, const CudnnTarget& target, int most);

}  // namespace eg::cuda_backend
