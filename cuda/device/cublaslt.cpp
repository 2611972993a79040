// cuda/device/cublaslt.cpp - the matrix products of the table by cuBLASLt. NOT RUN ON A GPU YET: compiled and linked only.
//
// cuBLASLt thinks in columns: our c[M,N] is its N x M matrix, so the product is c^T = op(b)^T op(a)^T, with our b as its A.
// Its bias runs along the rows of that matrix, which are our columns, and its BGRADB sums our a.
//
// The same bits each time: the algorithm is one of the first that the heuristic names, asked for once per call and kept, and
// split sums are added from the workspace in a fixed order (no reduction in place, none in the type of the output).
//
// Its GELU is the tanh form, so that a network with the exact one (erf, timm's) takes our kernels in those two layers.
#include "cuda/device/cublaslt.h"

#include <cublasLt.h>

#include <map>
#include <memory>
#include <mutex>

#include "cuda/device/per_gpu.h"
#include "cuda/device/runtime.h"
#include "cuda/kernels/library.h"
#include "cuda/kernels/operands.h"
#include "cuda/kernels/reduce.h"
#include "cuda/scratch.h"
#include "engine/error.h"

namespace eg::cuda_backend {
namespace {

constexpr int kAlgorithms = 3;  // that are offered; further down the heuristic's list they are rarely the fastest
constexpr std::size_t kWorkspace = std::size_t(32) << 20;
constexpr std::uint32_t kAlignment = 16;  // of a slice of an arena

void check_blas(cublasStatus_t status, const char* what) {
  check(status == CUBLAS_STATUS_SUCCESS, Kind::device, [&] {
    return cat("cuBLASLt: ", what, ": ", cublasLtGetStatusString(status), "; --kernels hand does without it");
  });
}

cudaDataType_t type_of(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

template <class Handle, cublasStatus_t (*destroy)(Handle)>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle h) const { destroy(h); }
};
using Layout = std::unique_ptr<void, Destroy<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>>;
using Description = std::unique_ptr<void, Destroy<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>>;
using Preference = std::unique_ptr<void, Destroy<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>>;

Layout layout_of(const TensorView& v) {
  cublasLtMatrixLayout_t l = nullptr;
  check_blas(
      cublasLtMatrixLayoutCreate(&l, type_of(v.dtype), std::uint64_t(v.cols()), std::uint64_t(v.rows()), v.cols()),
      "describing a matrix");
  return Layout(l);
}

template <class T>
void set(const Description& d, cublasLtMatmulDescAttributes_t name, const T& value) {
  check_blas(cublasLtMatmulDescSetAttribute(d.get(), name, &value, sizeof value), "describing a product");
}
template <class T>
void set(const Preference& p, cublasLtMatmulPreferenceAttributes_t name, const T& value) {
  check_blas(cublasLtMatmulPreferenceSetAttribute(p.get(), name, &value, sizeof value), "asking for algorithms");
}

/// A product as cuBLASLt knows it, for one kind of call; its pointers come with each call.
struct Plan {
  Description description;
  Layout a, b, c;          // the library's: our b, a, c
  bool sums_bias = false;  // the epilogue writes bias_grad; else a kernel of ours does
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms;
};

cublasLtEpilogue_t epilogue_of(const Matmul& m, bool sums_bias) {
  switch (m.epilogue) {
    case Epilogue::none: return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::bias: return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::bias_gelu: return CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    case Epilogue::dgelu: return sums_bias ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_DGELU;
    case Epilogue::bias_grad_a: return sums_bias ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_DEFAULT;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

void set_pointers(const Plan& plan, const Matmul& m) {
  const TensorView& vector = plan.sums_bias ? m.bias_grad : m.bias;
  if (vector) set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector.data);
  if (m.aux) set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, m.aux.data);
}

Plan make_plan(cublasLtHandle_t handle, const Matmul& m, bool sums_bias) {
  Plan plan;
  plan.sums_bias = sums_bias;
  cublasLtMatmulDesc_t d = nullptr;
  check_blas(cublasLtMatmulDescCreate(&d, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  plan.description.reset(d);
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, m.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, m.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(m, sums_bias));
  if (const TensorView& vector = sums_bias ? m.bias_grad : m.bias)
    set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(vector.dtype));
  if (m.aux) {
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t(m.c.cols()));
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, type_of(m.aux.dtype));
  }
  set_pointers(plan, m);
  plan.a = layout_of(m.b), plan.b = layout_of(m.a), plan.c = layout_of(m.c);

  cublasLtMatmulPreference_t p = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&p), "asking for algorithms");
  const Preference preference(p);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspace);
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    set(preference, name, kAlignment);
  plan.algorithms.resize(kAlgorithms);
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, plan.description.get(), plan.a.get(), plan.b.get(), plan.c.get(),
                                     plan.c.get(), preference.get(), kAlgorithms, plan.algorithms.data(), &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE)
    found = 0;  // not offered
  else
    check_blas(status, "asking for algorithms");
  plan.algorithms.resize(std::size_t(found));
  std::erase_if(plan.algorithms, [](const auto& r) { return r.state != CUBLAS_STATUS_SUCCESS; });
  return plan;
}

/// Handle and plans of one GPU.
struct Library {
  explicit Library() { check_blas(cublasLtCreate(&handle), "starting"); }
  cublasLtHandle_t handle = nullptr;
  std::mutex mutex;  // pointers of a call are part of the description that the calls of a kind share
  std::map<std::string, Plan> plans;
};
Library& library() { return per_gpu<Library>(); }

void sum_bias(const Matmul& m, Stream s) {
  const TensorView& x = m.epilogue == Epilogue::dgelu ? m.c : m.a;
  ColumnSumParams c;
  c.x = operand(x), c.out = operand(m.bias_grad), c.partials = nullptr;
  c.rows = x.rows(), c.columns = c.row_stride = x.cols(), c.offset = 0, c.accumulate = m.accumulate_bias_grad;
  sum_columns("matmul bias gradient", c, s);
}

void run(Library& l, const Plan& plan, std::size_t algorithm, const Matmul& m, Stream s) {
  const auto& chosen = plan.algorithms[algorithm];
  void* const workspace = chosen.workspaceSize ? scratch(s, chosen.workspaceSize).data : nullptr;
  const float one = 1.0f, old = m.accumulate ? 1.0f : 0.0f;
  {
    const std::lock_guard lock(l.mutex);
    set_pointers(plan, m);
    check_blas(cublasLtMatmul(l.handle, plan.description.get(), &one, m.b.data, plan.a.get(), m.a.data, plan.b.get(),
                              &old, m.c.data, plan.c.get(), m.c.data, plan.c.get(), &chosen.algo, workspace,
                              chosen.workspaceSize, cuda_stream(s)),
               "a matrix product");
  }
  if (m.bias_grad && !plan.sums_bias) sum_bias(m, s);
}

bool offered(const Matmul& m) {
  const bool gelu = m.epilogue == Epilogue::bias_gelu || m.epilogue == Epilogue::dgelu;
  if (gelu && (m.gelu != GeluKind::tanh || m.c.cols() % 8 != 0 || m.accumulate)) return false;
  const bool narrow = m.a.dtype == DType::bf16;
  if (m.a.dtype != m.b.dtype || m.a.size() == 0 || (!narrow && m.c.dtype != DType::f32)) return false;
  return wide_access({&m.a, &m.b, &m.c, &m.bias, &m.aux, &m.bias_grad});
}

}  // namespace

std::vector<std::string> cublaslt_names() {
  std::vector<std::string> names;
  for (int i = 0; i < kAlgorithms; ++i) names.push_back(cat("cublaslt-", i));
  return names;
}
std::size_t cublaslt_version() { return cublasLtGetVersion(); }

void add_library_ways(const std::string& call, const Matmul& m, std::vector<Way<Matmul>>* ways) {
  if (!offered(m)) return;
  Library& l = library();
  const Plan* plan = nullptr;
  {
    const std::lock_guard lock(l.mutex);
    auto at = l.plans.find(call);
    if (at == l.plans.end()) {
      // In one pass where the library can; it overwrites the gradient of a bias, and does not know every pair of types.
      const bool in_one = m.bias_grad && !m.accumulate_bias_grad;
      Plan made = make_plan(l.handle, m, in_one);
      if (in_one && made.algorithms.empty()) made = make_plan(l.handle, m, false);
      at = l.plans.emplace(call, std::move(made)).first;
    }
    plan = &at->second;  // a map's elements stay in place
  }
  const std::vector<std::string> names = cublaslt_names();
  for (std::size_t i = 0; i < plan->algorithms.size(); ++i) {
    Way<Matmul> way;
    way.implementation = {names[i], true};
    way.run = [&l, plan, i](const Matmul& a, Stream s) { run(l, *plan, i, a, s); };
    ways->push_back(std::move(way));
  }
}

}  // namespace eg::cuda_backend
