// apps/diagnosis/robustness.h - how much harm a network can take: noise on its weights, pruning, quantisation
// (methods.md D.7). Each works on the values of one matrix; whoever calls it keeps a copy and puts it back.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace eg {

/// w + strength rms(w) e with standard normal e of the Philox stream (seed, purpose, step = draw). strength 0 changes
/// no bit.
void add_weight_noise(std::span<double> w, double strength, std::uint64_t seed, const std::string& purpose,
                      std::uint32_t draw);
/// Zeroes the `share` of elements that are smallest in absolute value; the later of two equal ones goes first.
void prune_smallest(std::span<double> w, double share);
/// Symmetric round-to-nearest per row (output channel): q = round(w / step), step = max|row| / (2^(bits-1) - 1).
void quantise_rows(std::span<double> w, std::int64_t rows, int bits);

/// Area under relative accuracy over the levels, by the trapezoid rule over a width of 1. accuracy[0] is the unharmed
/// network's; all are corrected for chance. 0 when the network was no better than chance.
double robust_area(std::span<const double> levels, std::span<const double> accuracy, double chance);

/// The first level, between levels by a straight line, at which relative accuracy falls to `share`; the last level where it
/// never does, NaN when the network was no better than chance.
double robust_level(std::span<const double> levels, std::span<const double> accuracy, double chance,
                    double share = 0.9);

}  // namespace eg
