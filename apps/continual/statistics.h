// apps/continual/statistics.h - how sure a mean over seeds is, and whether two methods differ.
#pragma once
#include <cstdint>
#include <span>

namespace eg {

/// Probability that Student's t with `degrees` of freedom lies below t.
double student_cdf(double t, double degrees);
/// The t with student_cdf(t) = p, for p in (0, 1).
double student_quantile(double p, double degrees);

struct Interval {
  double mean = 0.0, deviation = 0.0, low = 0.0, high = 0.0;  // deviation: of the sample
  int n = 0;
};
/// Student's interval of the mean. One value, or none: low and high are NaN.
Interval mean_interval(std::span<const double> values, double level = 0.95);
/// Percentile bootstrap of the mean with `draws` resamples; the same for the same values. Narrower than Student's for a
/// handful of values, since resampling cannot know of tails that it has not seen.
Interval bootstrap_interval(std::span<const double> values, double level = 0.95, int draws = 10000);

struct PairedTest {
  Interval difference;   // of a - b, Student's
  double p = 1.0;        // two-sided, Student's paired test; NaN for n < 2
  double p_exact = 1.0;  // two-sided, all sign flips of the differences (above 2^16: as many random ones)
};
/// a[i] and b[i] belong together: the same seed. Throws Error{shape} for different lengths.
PairedTest paired_test(std::span<const double> a, std::span<const double> b);

}  // namespace eg
