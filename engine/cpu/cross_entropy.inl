// engine/cpu/cross_entropy.inl - softmax cross-entropy of rows (see cross_entropy.cpp), for one instruction set.

// What all rows share. allowed[k] is 1 or 0 (null: all classes), uniform = smoothing / allowed classes.
struct RowSetup {
  const float* allowed;
  float keep, uniform, smoothing, scale;
};

struct RowSums {
  float largest, sum, distance;  // max z, sum e^(z - max), sum of (z - max), over allowed classes
};

template <class T>
RowSums row_sums(const T* z, std::int64_t classes, const float* allowed, float* exponentials) {
  const F32 lowest = broadcast(-std::numeric_limits<float>::infinity());
  const auto usable = [&](std::int64_t i, std::int64_t n) {
    return allowed ? zero() < load_some(allowed + i, n) : first_lanes(n);
  };
  F32 top = lowest;
  for_each_vector(classes, [&](std::int64_t i, std::int64_t n) {
    top = max(select(usable(i, n), load_some(z + i, n), lowest), top);
  });
  const float largest = reduce_max(top);
  const F32 shift = broadcast(largest);
  F32 sum = zero(), distance = zero();
  for_each_vector(classes, [&](std::int64_t i, std::int64_t n) {
    const Mask ok = usable(i, n);
    const F32 d = select(ok, load_some(z + i, n) - shift, zero()), e = select(ok, exp(d), zero());
    store(exponentials + i, e);
    sum += e;
    distance += d;
  });
  return {largest, reduce_add(sum), reduce_add(distance)};
}

// sum of soft[k] and of soft[k] (z[k] - max), over allowed classes.
template <class T>
std::pair<float, float> soft_sums(const T* z, const float* soft, std::int64_t classes, const float* allowed,
                                  float largest) {
  const F32 shift = broadcast(largest);
  F32 weight = zero(), product = zero();
  for_each_vector(classes, [&](std::int64_t i, std::int64_t n) {
    const Mask ok = allowed ? zero() < load_some(allowed + i, n) : first_lanes(n);
    const F32 s = select(ok, load_some(soft + i, n), zero());
    weight += s;
    product = fma(s, select(ok, load_some(z + i, n) - shift, zero()), product);
  });
  return {reduce_add(weight), reduce_add(product)};
}

// dlogits = (e / sum - keep soft - uniform) scale; the label's share is taken off afterwards.
template <class T>
void row_gradient(T* out, const float* e, const float* soft, std::int64_t classes, const RowSetup& s, float sum) {
  const F32 inverse = broadcast(1.0f / sum), keep = broadcast(s.keep), scale = broadcast(s.scale);
  for_each_vector(classes, [&](std::int64_t i, std::int64_t n) {
    F32 target = broadcast(s.uniform);
    if (soft) target = fma(load_some(soft + i, n), keep, target);
    F32 d = fma(load(e + i), inverse, zero() - target) * scale;
    if (s.allowed) d = select(zero() < load_some(s.allowed + i, n), d, zero());
    store_some(out + i, d, n);
  });
}

template <class V>
std::int64_t first_largest(const V* values, std::int64_t classes, const float* allowed) {
  std::int64_t best = -1;
  for (std::int64_t k = 0; k < classes; ++k)
    if ((!allowed || allowed[k] > 0.0f) && (best < 0 || float(values[k]) > float(values[best]))) best = k;
  return best;
}

template <class T>
void cross_entropy_row(const CrossEntropy& a, const RowSetup& s, std::int64_t row) {
  const std::int64_t K = a.logits.cols();
  const T* const z = a.logits.as<T>() + row * K;
  float* const e = thread_scratch(std::size_t(K + F32::kLanes));
  const float* const soft = a.soft ? a.soft.as<float>() + row * K : nullptr;
  const std::int64_t label = soft ? -1 : std::int64_t(a.labels.as<std::int32_t>()[row]);
  const RowSums sums = row_sums(z, K, s.allowed, e);
  const float log_sum = std::log(sums.sum);
  const bool excluded = label >= 0 && s.allowed && !(s.allowed[label] > 0.0f);
  if (a.loss) {
    float loss = s.smoothing * log_sum - s.uniform * sums.distance;
    if (soft) {
      const auto [weight, product] = soft_sums(z, soft, K, s.allowed, sums.largest);
      loss += s.keep * (weight * log_sum - product);
    } else {
      loss += excluded ? std::numeric_limits<float>::infinity() : s.keep * (log_sum - (float(z[label]) - sums.largest));
    }
    a.loss.as<float>()[row] = loss;
  }
  if (a.dlogits) {
    T* const out = a.dlogits.as<T>() + row * K;
    const float own = soft || excluded ? 0.0f : e[label] / sums.sum - s.uniform - s.keep;
    row_gradient(out, e, soft, K, s, sums.sum);
    if (!soft && !excluded) out[label] = T(own * s.scale);
  }
  if (a.correct) {
    const std::int64_t wanted = soft ? first_largest(soft, K, s.allowed) : label;
    a.correct.as<std::int32_t>()[row] = first_largest(z, K, s.allowed) == wanted ? 1 : 0;
  }
}

inline void cross_entropy(const CrossEntropy& a, const float* allowed, std::int64_t allowed_classes) {
  const double uniform = a.smoothing / double(std::max<std::int64_t>(1, allowed_classes));
  const RowSetup setup{allowed, float(1.0 - a.smoothing), float(uniform), float(a.smoothing), float(a.scale)};
  const std::int64_t grain = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, a.logits.cols()));
  with_activation("cross_entropy", a.logits.dtype, [&](auto t) {
    parallel_for(a.logits.rows(), grain, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
      for (std::int64_t row = begin; row < end; ++row) cross_entropy_row<decltype(t)>(a, setup, row);
    });
  });
}
