// cuda/device/cudnn_graph.cpp - see cudnn_graph.h. NOT RUN ON A GPU YET.
//
// Forward is one operation of the library. Backward has one too, which version 9.19 declares and then refuses to build, so
// that it is written down here from products and pointwise operations; the library knows the pattern and fuses it.
#include "cuda/device/cudnn_graph.h"

#include <utility>

#include "engine/error.h"

namespace eg::cuda_backend {

void check_cudnn(cudnnStatus_t status, const char* what) {
  check(status == CUDNN_STATUS_SUCCESS, Kind::device, [&] {
    char detail[512] = "";
    cudnnGetLastErrorString(detail, sizeof detail);
    return cat("cuDNN: ", what, ": ", cudnnGetErrorString(status), *detail ? ", " : "", detail,
               "; --kernels hand does without it");
  });
}

namespace {

CudnnDescriptor make(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t d = nullptr;
  check_cudnn(cudnnBackendCreateDescriptor(type, &d), "describing attention");
  return CudnnDescriptor(d, [](void* p) { cudnnBackendDestroyDescriptor(p); });
}

void set(const CudnnDescriptor& d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
         std::int64_t count, const void* values) {
  check_cudnn(cudnnBackendSetAttribute(d.get(), name, type, count, values), "describing attention");
}
void set(const CudnnDescriptor& d, cudnnBackendAttributeName_t name, std::int64_t value) {
  set(d, name, CUDNN_TYPE_INT64, 1, &value);
}
void set(const CudnnDescriptor& d, cudnnBackendAttributeName_t name, cudnnDataType_t value) {
  set(d, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}
void set(const CudnnDescriptor& d, cudnnBackendAttributeName_t name, const CudnnDescriptor& value) {
  void* const p = value.get();
  set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &p);
}
void finalize(const CudnnDescriptor& d) { check_cudnn(cudnnBackendFinalize(d.get()), "describing attention"); }

std::int64_t number(const CudnnDescriptor& d, cudnnBackendAttributeName_t name) {
  std::int64_t value = 0, count = 0;
  check_cudnn(cudnnBackendGetAttribute(d.get(), name, CUDNN_TYPE_INT64, 1, &count, &value), "asking about a plan");
  return value;
}

/// Dimensions and strides of a tensor, in elements.
struct Layout {
  std::int64_t dims[4], strides[4];
};
Layout transposed(Layout l) {
  std::swap(l.dims[2], l.dims[3]), std::swap(l.strides[2], l.strides[3]);
  return l;
}
constexpr Layout kNumber{{1, 1, 1, 1}, {1, 1, 1, 1}};

/// Tensors and operations of one graph.
class Builder {
 public:
  explicit Builder(const CudnnAttention& a)
      : packed{{a.images, a.heads, a.tokens, a.width}, {3 * row(a) * a.tokens, a.width, 3 * row(a), 1}},
        plain{{a.images, a.heads, a.tokens, a.width}, {row(a) * a.tokens, a.width, row(a), 1}},
        per_query{{a.images, a.heads, a.tokens, 1}, {a.heads * a.tokens, a.tokens, 1, 1}},
        scores{{a.images, a.heads, a.tokens, a.tokens},
               {a.heads * a.tokens * a.tokens, a.tokens * a.tokens, a.tokens, 1}} {}

  const Layout packed, plain, per_query, scores;

  CudnnDescriptor tensor(std::int64_t id, cudnnDataType_t type, const Layout& l,
                         cudnnBackendAttributeName_t property = CUDNN_ATTR_TENSOR_UNIQUE_ID) {
    CudnnDescriptor t = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(t, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set(t, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    set(t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, l.dims);
    set(t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, l.strides);
    set(t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t(16));
    const bool yes = true;
    if (property != CUDNN_ATTR_TENSOR_UNIQUE_ID) set(t, property, CUDNN_TYPE_BOOLEAN, 1, &yes);
    return keep(std::move(t));
  }
  CudnnDescriptor values(CudnnTensor id, const Layout& l) { return tensor(id, CUDNN_DATA_BFLOAT16, l); }
  CudnnDescriptor sums(CudnnTensor id) { return tensor(id, CUDNN_DATA_FLOAT, per_query); }
  CudnnDescriptor host_number(CudnnTensor id) {
    return tensor(id, CUDNN_DATA_FLOAT, kNumber, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
  }
  CudnnDescriptor inner(cudnnDataType_t type, const Layout& l) {
    return tensor(next_++, type, l, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
  }

  /// An operation whose attributes are tensors or the description of what it computes.
  void operation(cudnnBackendDescriptorType_t type,
                 std::initializer_list<std::pair<cudnnBackendAttributeName_t, const CudnnDescriptor*>> parts) {
    const CudnnDescriptor op = make(type);
    for (const auto& [name, part] : parts) set(op, name, *part);
    finalize(op);
    operations_.push_back(op.get());
    graph_.parts.push_back(op);
  }

  void product(const CudnnDescriptor& a, const CudnnDescriptor& b, const CudnnDescriptor& c) {
    const CudnnDescriptor what = make(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    set(what, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT);
    keep(what);
    operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_MATMUL_ADESC, &a},
                                                          {CUDNN_ATTR_OPERATION_MATMUL_BDESC, &b},
                                                          {CUDNN_ATTR_OPERATION_MATMUL_CDESC, &c},
                                                          {CUDNN_ATTR_OPERATION_MATMUL_DESC, &what}});
  }
  CudnnDescriptor product(const CudnnDescriptor& a, const CudnnDescriptor& b) {
    CudnnDescriptor c = inner(CUDNN_DATA_FLOAT, scores);
    product(a, b, c);
    return c;
  }
  /// Of x and b, or of x alone.
  void pointwise(cudnnPointwiseMode_t mode, const CudnnDescriptor& x, const CudnnDescriptor& b,
                 const CudnnDescriptor& y) {
    const CudnnDescriptor what = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    set(what, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    set(what, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    keep(what);
    if (b)
      operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &what},
                                                               {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &x},
                                                               {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &b},
                                                               {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &y}});
    else
      operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &what},
                                                               {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &x},
                                                               {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &y}});
  }
  CudnnDescriptor pointwise(cudnnPointwiseMode_t mode, const CudnnDescriptor& x, const CudnnDescriptor& b,
                            const Layout& l) {
    CudnnDescriptor y = inner(CUDNN_DATA_FLOAT, l);
    pointwise(mode, x, b, y);
    return y;
  }
  CudnnDescriptor row_sum(const CudnnDescriptor& x) {
    const CudnnDescriptor what = make(CUDNN_BACKEND_REDUCTION_DESCRIPTOR), y = inner(CUDNN_DATA_FLOAT, per_query);
    const cudnnReduceTensorOp_t add = CUDNN_REDUCE_TENSOR_ADD;
    set(what, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &add);
    set(what, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    keep(what);
    operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_REDUCTION_DESC, &what},
                                                             {CUDNN_ATTR_OPERATION_REDUCTION_XDESC, &x},
                                                             {CUDNN_ATTR_OPERATION_REDUCTION_YDESC, &y}});
    return y;
  }
  /// x with its last two dimensions exchanged, in bf16 as the product that takes it needs it.
  CudnnDescriptor transpose(const CudnnDescriptor& x, const Layout& l) {
    const CudnnDescriptor y = inner(CUDNN_DATA_BFLOAT16, transposed(l));
    operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR,
              {{CUDNN_ATTR_OPERATION_RESHAPE_XDESC, &x}, {CUDNN_ATTR_OPERATION_RESHAPE_YDESC, &y}});
    return y;
  }

  CudnnGraph finish(const CudnnTarget& target) {
    graph_.graph = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    if (target.handle) set(graph_.graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
    set(graph_.graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::int64_t(operations_.size()),
        operations_.data());
    finalize(graph_.graph);
    return std::move(graph_);
  }

 private:
  static std::int64_t row(const CudnnAttention& a) { return a.heads * a.width; }
  CudnnDescriptor keep(CudnnDescriptor d) {
    finalize(d);
    graph_.parts.push_back(d);
    return d;
  }

  CudnnGraph graph_;
  std::vector<void*> operations_;
  std::int64_t next_ = kCudnnInner;
};

}  // namespace

CudnnTarget cudnn_target(const std::string& json) {
  CudnnTarget t;
  t.described = make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  set(t.described, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::int64_t(json.size()), json.data());
  finalize(t.described);
  return t;
}

CudnnGraph cudnn_attention_fwd(const CudnnAttention& a, const CudnnTarget& target) {
  Builder g(a);
  const CudnnDescriptor q = g.values(kCudnnQ, g.packed), k = g.values(kCudnnK, g.packed),
                        v = g.values(kCudnnV, g.packed), out = g.values(kCudnnOut, g.plain), lse = g.sums(kCudnnLse),
                        scale = g.host_number(kCudnnScale);
  g.operation(CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, {{CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, &q},
                                                            {CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, &k},
                                                            {CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, &v},
                                                            {CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, &out},
                                                            {CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, &lse},
                                                            {CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, &scale}});
  return g.finish(target);
}

// The pattern has k and v transposed from the start. P = e^(scale Q K^T - lse), dV = P^T dO, dP = dO V^T, delta =
// rowsum(dO O), dS = scale P (dP - delta), dK = dS^T Q, dQ = dS K. dQ is the product itself, for which the library keeps all
// of dS in its workspace: with a sum in fp32 between them, the other pattern that it knows, blocks add to dQ in any order, and
// 9.19 does not even note those engines as ones that do not repeat.
CudnnGraph cudnn_attention_bwd(const CudnnAttention& a, const CudnnTarget& target) {
  Builder g(a);
  const Layout turned = transposed(g.packed);
  const CudnnDescriptor q = g.values(kCudnnQ, g.packed), k = g.values(kCudnnK, turned), v = g.values(kCudnnV, turned),
                        out = g.values(kCudnnOut, g.plain), dout = g.values(kCudnnDout, g.plain),
                        lse = g.sums(kCudnnLse), delta = g.sums(kCudnnDelta), scale = g.host_number(kCudnnScale),
                        one = g.host_number(kCudnnOne), dq = g.values(kCudnnDq, g.packed),
                        dk = g.values(kCudnnDk, g.packed), dv = g.values(kCudnnDv, g.packed);
  const CudnnDescriptor own = g.pointwise(CUDNN_POINTWISE_MUL, dout, out, g.plain);
  g.pointwise(CUDNN_POINTWISE_MUL, g.row_sum(own), one, delta);

  const CudnnDescriptor s = g.pointwise(CUDNN_POINTWISE_MUL, g.product(q, k), scale, g.scores);
  const CudnnDescriptor p =
      g.pointwise(CUDNN_POINTWISE_EXP, g.pointwise(CUDNN_POINTWISE_SUB, s, lse, g.scores), {}, g.scores);
  g.product(g.transpose(p, g.scores), dout, dv);

  const CudnnDescriptor dp = g.pointwise(CUDNN_POINTWISE_SUB, g.product(dout, v), delta, g.scores);
  const CudnnDescriptor ds =
      g.pointwise(CUDNN_POINTWISE_MUL, g.pointwise(CUDNN_POINTWISE_MUL, dp, p, g.scores), scale, g.scores);
  g.product(g.transpose(ds, g.scores), q, dk);
  g.product(ds, g.transpose(k, turned), dq);
  return g.finish(target);
}

namespace {

/// The engines that the heuristic names for a graph. "Not supported" is an answer: none.
std::vector<CudnnDescriptor> configs_of(const CudnnGraph& graph, const CudnnTarget& target) {
  const CudnnDescriptor heuristic = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
  set(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.graph);
  set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (target.described) set(heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target.described);
  if (cudnnBackendFinalize(heuristic.get()) != CUDNN_STATUS_SUCCESS) return {};
  std::int64_t count = 0;
  check_cudnn(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                       &count, nullptr),
              "asking for plans");
  std::vector<CudnnDescriptor> configs;
  std::vector<void*> raw;
  for (std::int64_t i = 0; i < count; ++i) {
    configs.push_back(make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    raw.push_back(configs.back().get());
  }
  check_cudnn(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                       count, &count, raw.data()),
              "asking for plans");
  configs.resize(std::size_t(count));  // some may turn out not to work
  return configs;
}

bool repeats(const CudnnDescriptor& engine) {
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  std::int64_t count = 0;
  check_cudnn(cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                       CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes),
              "asking about an engine");
  for (std::int64_t i = 0; i < count; ++i)
    if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) return false;
  return true;
}

}  // namespace

std::vector<CudnnPlan> cudnn_plans(const CudnnGraph& graph, const CudnnTarget& target, int most) {
  std::vector<CudnnPlan> plans;
  for (CudnnDescriptor& config : configs_of(graph, target)) {
    if (int(plans.size()) == most) break;
    const CudnnDescriptor engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    void* raw = engine.get();
    std::int64_t count = 0;
    check_cudnn(cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                         &count, &raw),
                "asking about an engine");
    if (!repeats(engine)) continue;
    CudnnPlan p{config, make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)};
    set(p.plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (target.described) set(p.plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target.described);
    if (target.handle) set(p.plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &target.handle);
    if (cudnnBackendFinalize(p.plan.get()) != CUDNN_STATUS_SUCCESS) continue;
    p.workspace = std::size_t(number(p.plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
    p.engine = number(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
    plans.push_back(std::move(p));
  }
  return plans;
}

}  // namespace eg::cuda_backend
