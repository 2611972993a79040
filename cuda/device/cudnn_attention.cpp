// cuda/device/cudnn_attention.cpp - attention of the table by cuDNN. NOT RUN ON A GPU YET: compiled and linked, and its plans
// are made for described GPUs by tests/cudnn.
//
// q, k and v are read where the fused projection left them and their gradients are written there; lse is the library's
// statistic as it is ours, the natural logarithm of the sum of e^score. The same bits each time: plans are asked for once per
// call and kept, and engines that add in any order are not among them. The price is backward's workspace, which holds dS of
// the whole batch.
//
// The library's backward pass is known to have given NaN on Hopper for some numbers of tokens. So its ways are watched
// (engine/kernel_choices.h): after the first gradient that is not finite they are not taken any more.
#include "cuda/device/cudnn_attention.h"

#include <map>
#include <mutex>

#include "cuda/device/cudnn_graph.h"
#include "cuda/device/per_gpu.h"
#include "cuda/device/runtime.h"
#include "cuda/kernels/library.h"
#include "cuda/kernels/operands.h"
#include "cuda/scratch.h"
#include "engine/error.h"

namespace eg::cuda_backend {
namespace {

constexpr int kPlans = 2;                                     // that are offered; each costs a second to compile
constexpr std::size_t kMostWorkspace = std::size_t(1) << 30;  // a batch of 256 at 197 tokens and 12 heads needs 403 MB

std::string forward_name(std::size_t i) { return cat("cudnn-", i); }
std::string backward_name(std::size_t i) { return cat("cudnn-backward-", i); }

/// Handle and plans of one GPU.
struct Library {
  Library() { check_cudnn(cudnnCreate(&handle), "starting"); }
  cudnnHandle_t handle = nullptr;
  std::mutex mutex;  // a handle has one stream at a time
  std::map<std::string, std::vector<CudnnPlan>> plans;
};
Library& library() { return per_gpu<Library>(); }

/// What a call passes: tensors on the device, and numbers on the host that are read before execute() returns.
struct Arguments {
  std::vector<std::int64_t> ids;
  std::vector<void*> pointers;
  void add(CudnnTensor id, const void* p) {
    ids.push_back(id), pointers.push_back(const_cast<void*>(p));  // the library's interface knows no const
  }
};

void execute(Library& l, const CudnnPlan& plan, const Arguments& a, void* workspace, Stream s) {
  cudnnBackendDescriptor_t raw = nullptr;
  check_cudnn(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &raw), "passing tensors");
  const CudnnDescriptor pack(raw, [](void* p) { cudnnBackendDestroyDescriptor(p); });
  const auto set = [&](cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t count,
                       const void* values) {
    check_cudnn(cudnnBackendSetAttribute(raw, name, type, std::int64_t(count), values), "passing tensors");
  };
  set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, a.ids.size(), a.ids.data());
  set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, a.pointers.size(), a.pointers.data());
  set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  check_cudnn(cudnnBackendFinalize(raw), "passing tensors");
  const std::lock_guard lock(l.mutex);
  check_cudnn(cudnnSetStream(l.handle, cuda_stream(s)), "taking a stream");
  check_cudnn(cudnnBackendExecute(l.handle, plan.plan.get(), raw), "attention");
}

CudnnAttention attention_of(const TensorView& qkv) { return {qkv.dim(0), qkv.dim(1), qkv.dim(3), qkv.dim(4)}; }

/// Where part 0, 1, 2 of the first token begins: q, k, v.
const void* part(const TensorView& packed, std::int64_t i) {
  return static_cast<const char*>(packed.data) + std::size_t(i * packed.dim(3) * packed.dim(4)) * size_of(packed.dtype);
}

void run_forward(Library& l, const CudnnPlan& plan, const AttentionFwd& a, Stream s) {
  const float scale = float(a.scale);
  Arguments args;
  args.add(kCudnnQ, part(a.qkv, 0)), args.add(kCudnnK, part(a.qkv, 1)), args.add(kCudnnV, part(a.qkv, 2));
  args.add(kCudnnOut, a.out.data), args.add(kCudnnLse, a.lse.data), args.add(kCudnnScale, &scale);
  execute(l, plan, args, plan.workspace ? scratch(s, plan.workspace).data : nullptr, s);
}

/// Of the scratch memory in front of the plan's own: delta, in whole packs of 256 bytes.
std::size_t delta_bytes(const TensorView& lse) { return (std::size_t(lse.size()) * sizeof(float) + 255) / 256 * 256; }

void run_backward(Library& l, const CudnnPlan& plan, const AttentionBwd& a, Stream s) {
  const float scale = float(a.scale), one = 1.0f;
  const std::size_t first = delta_bytes(a.lse);
  char* const memory = static_cast<char*>(scratch(s, first + plan.workspace).data);
  Arguments args;
  args.add(kCudnnQ, part(a.qkv, 0)), args.add(kCudnnK, part(a.qkv, 1)), args.add(kCudnnV, part(a.qkv, 2));
  args.add(kCudnnOut, a.out.data), args.add(kCudnnDout, a.dout.data), args.add(kCudnnLse, a.lse.data);
  args.add(kCudnnDq, part(a.dqkv, 0)), args.add(kCudnnDk, part(a.dqkv, 1)), args.add(kCudnnDv, part(a.dqkv, 2));
  args.add(kCudnnDelta, memory), args.add(kCudnnScale, &scale), args.add(kCudnnOne, &one);
  execute(l, plan, args, memory + first, s);
}

bool offered(const TensorView& qkv, std::initializer_list<const TensorView*> values, const TensorView& lse) {
  if (qkv.size() == 0 || qkv.dim(4) % 8 != 0 || qkv.dim(4) > 128 || lse.dtype != DType::f32) return false;
  for (const TensorView* v : values)
    if (v->dtype != DType::bf16) return false;
  return wide_access(values) && wide_access({&lse}) && cudnnGetVersion() >= kOldestCudnn;
}

template <class MakeGraph>
const std::vector<CudnnPlan>& plans_of(Library& l, const std::string& call, const MakeGraph& graph) {
  const std::lock_guard lock(l.mutex);
  auto at = l.plans.find(call);
  if (at == l.plans.end()) {
    const CudnnTarget target{l.handle, {}};
    std::vector<CudnnPlan> plans = cudnn_plans(graph(target), target, kPlans);
    std::erase_if(plans, [](const CudnnPlan& p) { return p.workspace > kMostWorkspace; });
    at = l.plans.emplace(call, std::move(plans)).first;
  }
  return at->second;  // a map's elements stay in place
}

}  // namespace

std::vector<std::string> cudnn_names() {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kPlans; ++i) names.push_back(forward_name(i)), names.push_back(backward_name(i));
  return names;
}
std::size_t cudnn_version() { return cudnnGetVersion(); }

void add_library_ways(const std::string& call, const AttentionFwd& a, std::vector<Way<AttentionFwd>>* ways) {
  if (a.row_entropy || a.map || !offered(a.qkv, {&a.qkv, &a.out}, a.lse)) return;
  Library& l = library();
  const auto& plans =
      plans_of(l, call, [&](const CudnnTarget& t) { return cudnn_attention_fwd(attention_of(a.qkv), t); });
  for (std::size_t i = 0; i < plans.size(); ++i)
    ways->push_back({{forward_name(i), true},
                     [&l, &plan = plans[i]](const AttentionFwd& f, Stream s) { run_forward(l, plan, f, s); }});
}

void add_library_ways(const std::string& call, const AttentionBwd& a, std::vector<Way<AttentionBwd>>* ways) {
  if (a.accumulate || !offered(a.qkv, {&a.qkv, &a.out, &a.dout, &a.dqkv}, a.lse)) return;
  Library& l = library();
  const auto& plans =
      plans_of(l, call, [&](const CudnnTarget& t) { return cudnn_attention_bwd(attention_of(a.qkv), t); });
  for (std::size_t i = 0; i < plans.size(); ++i)
    ways->push_back({{backward_name(i), true, true},
                     [&l, &plan = plans[i]](const AttentionBwd& b, Stream s) { run_backward(l, plan, b, s); }});
}

}  // namespace eg::cuda_backend
