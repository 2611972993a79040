// tests/optim/test_muon.cpp - golden values and invariants of methods.md A.5.
#include <cmath>

#include "tests/optim/dense.h"

using namespace eg;
using namespace eg::test;

namespace {

Piece matrix(std::int64_t rows, std::int64_t cols, Module module = Module::proj) {
  Piece p{Values(std::size_t(rows * cols), 0.0)};
  p.shape = {rows, cols}, p.module = module;
  return p;
}

/// The direction that one step takes of a single matrix, without the factor of tall ones.
Values direction_of(Device d, std::int64_t rows, std::int64_t cols, const Values& gradient,
                    DType activation = DType::f64, const std::string& method = "muon") {
  Rig rig(d, method, {matrix(rows, cols)}, 1.0, 0.0, 0.0, activation);
  return scaled(rig.direction(gradient), 1.0 / double(float(std::sqrt(std::max(1.0, double(rows) / double(cols))))));
}

/// What five iterations make of a singular value.
double scalar_map(double s) {
  for (int i = 0; i < 5; ++i) s = 3.4445 * s - 4.7750 * s * s * s + 2.0315 * s * s * s * s * s;
  return s;
}

/// Error of a direction with singular values in [0, 1.21]: an iteration adds terms of which |a| + |b| + |c| = 10.3 bounds
/// the sum, each a sum of n products, and its slope, at most 3.9 there, multiplies what was wrong before.
double direction_error(Device d, std::int64_t n) {
  if (d == kReference) return kSameInDouble;
  double error = 0.0;
  for (int i = 0; i < 5; ++i) error = 3.9 * error + sum_error(n, 10.3);
  return error;
}

/// A product of Givens rotations: an orthogonal matrix of n x n.
std::vector<Values> rotation(std::size_t n, std::uint32_t stream) {
  std::vector<Values> q(n, Values(n, 0.0));
  for (std::size_t i = 0; i < n; ++i) q[i][i] = 1.0;
  const Values angles = draw(0, n * n, stream);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = i + 1; j < n; ++j) {
      const double c = std::cos(3.0 * angles[i * n + j]), s = std::sin(3.0 * angles[i * n + j]);
      for (Values& row : q) {
        const double a = row[i], b = row[j];
        row[i] = c * a - s * b, row[j] = s * a + c * b;
      }
    }
  return q;
}

}  // namespace

TEST_CASE("muon: five iterations are the published map of singular values") {
  const std::pair<double, double> golden[] = {{0.01, 0.698917}, {0.1, 0.712120}, {0.5, 0.765439}, {0.001, 0.470544}};
  CHECK(std::abs(scalar_map(1.0) - 0.696436) < 1e-6);
  for (const Device d : kBoth) {
    CHECK(std::abs(direction_of(d, 1, 1, {-7.0})[0] + 0.696436) <= 1e-6 + direction_error(d, 1));
    for (const auto& [s, mapped] : golden) {
      const Values x = direction_of(d, 2, 2, {s, 0.0, 0.0, std::sqrt(1.0 - s * s)});
      CHECK(std::abs(x[0] - mapped) <= 1e-6 + direction_error(d, 2));
      CHECK(x[1] == 0.0);
      CHECK(x[2] == 0.0);
      CHECK(std::abs(x[3] - scalar_map(std::sqrt(1.0 - s * s))) <= direction_error(d, 2));
    }
  }
}

TEST_CASE("muon: singular vectors stay, singular values of [0.003, 1] land in [0.682, 1.202]") {
  for (double s = 0.003; s <= 1.0; s += 1e-4) {
    const double mapped = scalar_map(s);
    CAPTURE(s);
    CHECK(mapped >= 0.6815);  // the band is given to three digits
    CHECK(mapped <= 1.2025);
  }
  const std::size_t rows = 7, cols = 12;
  const std::vector<Values> left = rotation(rows, 1), right = rotation(cols, 2);
  const Values singular{1.0, 0.7, 0.3, 0.1, 0.05, 0.02, 0.01};
  Values gradient(rows * cols, 0.0);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      for (std::size_t k = 0; k < rows; ++k) gradient[i * cols + j] += left[i][k] * singular[k] * right[j][k];
  for (const Device d : kBoth) {
    const Values x = direction_of(d, std::int64_t(rows), std::int64_t(cols), gradient);
    for (std::size_t a = 0; a < rows; ++a)
      for (std::size_t b = 0; b < cols; ++b) {
        double entry = 0.0;  // of left^T x right
        for (std::size_t i = 0; i < rows; ++i)
          for (std::size_t j = 0; j < cols; ++j) entry += left[i][a] * x[i * cols + j] * right[j][b];
        const double wanted = a == b ? scalar_map(singular[a] / length(singular)) : 0.0;
        CAPTURE(a);
        CAPTURE(b);
        // In the entry of one pair of singular vectors at most sqrt(rows) of the errors of single entries add up; the
        // gradient itself is rounded to fp32 on the cpu, which the smallest singular value sees 3.4445^5 times.
        const double rounded = d == kReference ? 0.0 : 490.0 * unit_roundoff(DType::f32);
        CHECK(std::abs(entry - wanted) <= std::sqrt(double(rows)) * (direction_error(d, std::int64_t(cols)) + rounded));
      }
  }
}

TEST_CASE("muon: gradients that are 1024 times as large give the same bits, whatever the momentum holds") {
  for (const Device d : kBoth) {
    Rig a(d, "muon", {matrix(4, 6)}), b(d, "muon", {matrix(4, 6)});
    for (int i = 0; i < 5; ++i) a.step(draw(i, 24)), b.step(scaled(draw(i, 24), 1024.0));
    CHECK(length(a.weights()) > 0.0);
    CHECK(a.weights() == b.weights());
  }
}

TEST_CASE("muon: a transposed gradient gives the transposed direction, and tall matrices step further") {
  for (const Device d : kBoth) {
    const Values g = draw(1, 15);
    Values transposed(15);
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 5; ++j) transposed[j * 3 + i] = g[i * 5 + j];
    const Values wide = direction_of(d, 3, 5, g), tall = direction_of(d, 5, 3, transposed);
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t j = 0; j < 5; ++j)
        CHECK(std::abs(wide[i * 5 + j] - tall[j * 3 + i]) <= 2.0 * direction_error(d, 5));
    Rig rig(d, "muon", {matrix(5, 3)}, 1.0);
    CHECK(length(rig.direction(transposed)) == doctest::Approx(std::sqrt(5.0 / 3.0) * length(tall)).epsilon(1e-6));
  }
}

TEST_CASE("muon: a gradient of zeros changes no bit, and decay shrinks a tall matrix by the rate alone") {
  for (const Device d : kBoth) {
    Piece p = matrix(4, 1);
    p.start = {1.0, -2.0, 0.5, 4.0};
    Rig still(d, "muon", {p}, 0.5), shrunk(d, "muon", {p}, 0.5, 0.25);
    still.step(Values(4, 0.0)), shrunk.step(Values(4, 0.0));
    CHECK(still.weights() == p.start);
    check_close(shrunk.weights(), scaled(p.start, 0.875), d, 4.0);
  }
}

TEST_CASE("muon: q, k and v are three matrices, and momentum is the published average but for its length") {
  for (const Device d : kBoth) {
    const Values g = draw(2, 24);
    Rig fused(d, "muon", {matrix(6, 4, Module::qkv)}, 1.0);
    const Values all = fused.direction(g);
    for (std::size_t part = 0; part < 3; ++part) {
      const auto begin = std::ptrdiff_t(8 * part);
      CHECK(Values(all.begin() + begin, all.begin() + begin + 8) ==
            direction_of(d, 2, 4, Values(g.begin() + begin, g.begin() + begin + 8)));
    }
    for (const bool nesterov : {true, false}) {
      Rig rig(d, nesterov ? "muon" : "muon:nesterov=false", {matrix(3, 4)}, 1.0);
      Values average(12, 0.0), u(12);
      for (int i = 0; i < 4; ++i) {
        const Values gradient = draw(i, 12);
        for (std::size_t k = 0; k < 12; ++k) {
          average[k] = 0.95 * average[k] + 0.05 * gradient[k];
          u[k] = nesterov ? 0.05 * gradient[k] + 0.95 * average[k] : average[k];
        }
        const Values step = rig.direction(gradient), wanted = direction_of(d, 3, 4, u);
        for (std::size_t k = 0; k < 12; ++k) CHECK(std::abs(step[k] - wanted[k]) <= 2.0 * direction_error(d, 16));
      }
    }
  }
}

TEST_CASE("muon: the clip factor enters the momentum, not the direction") {
  for (const Device d : kBoth) {
    Rig clipped(d, "muon", {matrix(3, 4)}, 1.0, 0.0, 0.5), plain(d, "muon", {matrix(3, 4)}, 1.0);
    const Values g = scaled(draw(3, 12), 10.0);
    const Values a = clipped.direction(g), b = plain.direction(g);
    CHECK(clipped.record.clip_scale < 0.1);
    for (std::size_t k = 0; k < 12; ++k) CHECK(std::abs(a[k] - b[k]) <= 2.0 * direction_error(d, 4));
  }
}

TEST_CASE("muon: what is no hidden matrix is AdamW's, at 0.015 of the rate unless adam-lr says otherwise") {
  for (const Device d : kBoth) {
    Piece norm = matrix(1, 4, Module::norm1);
    norm.start = {1.0, 1.0, 2.0, -1.0}, norm.shape = {4}, norm.decays = false;
    Piece head = norm;
    head.module = Module::head, head.block = -1, head.shape = {2, 2}, head.name = "head.weight", head.decays = true;
    Rig muon(d, "muon", {norm, head}, 0.02, 0.1), adamw(d, "adamw:beta2=0.95:eps=1e-10", {norm, head}, 3e-4, 0.1);
    Rig own(d, "muon:adam-lr=3e-4", {norm, head}, 7.0, 0.1);
    for (int i = 0; i < 4; ++i)
      for (Rig* const r : {&muon, &adamw, &own}) r->step({draw(i, 4), draw(i, 4, 1)});
    for (std::size_t p = 0; p < 2; ++p) {
      CHECK(muon.weights(p) == adamw.weights(p));
      CHECK(own.weights(p) == adamw.weights(p));
    }
  }
}

TEST_CASE("muon: products in bf16 give the direction of fp32 to the rounding of bf16") {
  const Values g = draw(4, 96);
  const Values exact = direction_of(kReference, 8, 12, g), rounded = direction_of(kCpu, 8, 12, g, DType::bf16);
  Values difference = exact;
  for (std::size_t i = 0; i < g.size(); ++i) difference[i] -= rounded[i];
  // Five iterations, each of terms that add up to 10.3 times the rounding of bf16.
  CHECK(length(difference) <= 5.0 * 10.3 * unit_roundoff(DType::bf16) * length(exact));
  CHECK(length(difference) > 0.0);
}
