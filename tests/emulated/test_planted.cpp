// tests/emulated/test_planted.cpp - every planted mistake is found by the builds that can find it; every clean twin is
// silent.
//
// A kernel runs in a process of its own, because AddressSanitizer ends it. The verdicts:
//   fault    the emulated device names kernel, thread and place (or AddressSanitizer or UBSan stops the program)
//   wrong    the result is not what it must be
//   seeds    in some random order of the threads the result is wrong
//   silent   this build does not see it
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/emulated/runtime.h"
#include "cuda/emulated/streams.h"
#include "cuda/launch.h"
#include "engine/error.h"
#include "tests/emulated/apart.h"
#include "tests/emulated/planted.h"

#if defined(EVERGRAD_VARIANT_ASAN)
extern "C" const char* __asan_default_options() { return "exitcode=99:detect_leaks=0"; }
extern "C" const char* __ubsan_default_options() { return "exitcode=99"; }
#endif

namespace eg::emulated_backend {
namespace {

constexpr int kBlocks = 5;
constexpr std::int64_t kN = kBlocks * kPlantedThreads;

enum class Build { plain, asan, race };
#if defined(EVERGRAD_VARIANT_ASAN)
constexpr Build kBuild = Build::asan;
#elif defined(EVERGRAD_VARIANT_RACE)
constexpr Build kBuild = Build::race;
#else
constexpr Build kBuild = Build::plain;
#endif

enum class Verdict { fault, wrong, seeds, silent };
const char* to_string(Verdict v) {
  static const char* const names[] = {"fault", "wrong", "seeds", "silent"};
  return names[int(v)];
}

/// Runs the kernel twice (a ticket that is not reset shows in the second launch) and returns 0 right, 1 wrong, 2 fault.
int run_here(Bug bug, bool fixed, std::uint64_t seed) {
  DeviceRuntime& r = emulated::emulated_runtime();
  emulated::settings() = {};
  emulated::settings().workers = 1;
  emulated::settings().schedule = {seed != 0, seed};
  std::vector<float> in(static_cast<std::size_t>(kN)), out(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = float(i);
  const std::size_t bytes = in.size() * sizeof(float);
  PlantedParams p;
  p.in = static_cast<const float*>(r.allocate(bytes)), p.out = static_cast<float*>(r.allocate(bytes));
  p.partials = static_cast<float*>(r.allocate((kBlocks + 1) * sizeof(float)));
  p.ticket = static_cast<unsigned*>(r.allocate(sizeof(unsigned)));
  p.host = in.data(), p.n = kN, p.one = 1;
  try {
    r.set_zero(p.ticket, sizeof(unsigned), {});
    r.copy_from_host(const_cast<float*>(p.in), in.data(), bytes, {});
    const std::size_t shared = bug == Bug::too_little_shared && !fixed ? 16 : sizeof(PlantedShared);
    float sum = 0.0f;
    for (int launches = 0; launches < 2; ++launches) {
      r.set_zero(p.partials, (kBlocks + 1) * sizeof(float), {});
      launch("planted", planted_kernel(bug, fixed), dim3(kBlocks), dim3(kPlantedThreads), shared, {}, p);
      r.copy_to_host(&sum, p.partials + kBlocks, sizeof sum, {});
    }
    r.copy_to_host(out.data(), p.out, bytes, {});
    r.release(p.out);
    r.release(const_cast<float*>(p.in));
    r.set_zero(p.ticket, sizeof(unsigned), {});  // the next operation reports what a release found
    r.synchronize({});
    if (bug == Bug::ticket_not_reset || bug == Bug::no_fence_before_ticket) {
      if (!(sum == expected(bug, 0, kBlocks))) return 1;
    } else {
      for (std::int64_t i = 0; i < kN; ++i)
        if (!(out[std::size_t(i)] == expected(bug, i, kBlocks))) return 1;
    }
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
  return 0;
}

Verdict verdict_of(Bug bug, bool fixed, std::string* text) {
  for (std::uint64_t seed = 0; seed <= 8; ++seed) {
    const Outcome o = run_apart([&] { return run_here(bug, fixed, seed); });
    *text = o.text;
    if (o.code == 0) continue;
    if (o.code == 1) return seed == 0 ? Verdict::wrong : Verdict::seeds;
    CHECK_MESSAGE((o.code == 2 || o.sanitizer()), cat("ended with ", o.code, "\n", o.text));
    return Verdict::fault;
  }
  return Verdict::silent;
}

struct Row {
  Bug bug;
  const char* name;
  Verdict plain, asan, race;
  const char* says;  // part of the message in the plain build (or, where that is silent, of the race build)
};
constexpr Verdict F = Verdict::fault, W = Verdict::wrong, N = Verdict::seeds, S = Verdict::silent;

const Row kRows[] = {
    {Bug::shared_write_outside, "shared write outside", S, F, F, "outside the block's shared memory"},
    {Bug::shared_read_outside, "shared read outside", W, F, F, "outside the block's shared memory"},
    {Bug::global_write_outside, "global write outside", F, F, F, "behind the end of a device block"},
    {Bug::global_read_outside, "global read outside", W, F, F, "outside a device block"},
    {Bug::no_barrier_before_read, "no barrier before reading", W, W, F, "shared memory"},
    {Bug::no_barrier_before_reuse, "no barrier before reuse", W, W, F, "shared memory"},
    {Bug::no_warp_barrier, "no warp barrier", W, W, F, "shared memory"},
    {Bug::shuffle_as_fence, "shuffle used as a fence", S, S, F, "shared memory"},
    {Bug::divergent_barrier, "divergent barrier", F, F, F, "divergent __syncthreads()"},
    {Bug::exit_before_barrier, "exit before a barrier", F, F, F, "exit"},
    {Bug::shuffle_with_exited_lane, "shuffle with an exited lane", F, F, F, "exited"},
    {Bug::shuffle_outside_its_mask, "shuffle outside its mask", F, F, F, "does not name the calling lane 7"},
    {Bug::shuffle_reads_outside_mask, "shuffle reads outside its mask", F, F, F, "not in the mask"},
    {Bug::shuffles_at_two_places, "two shuffles meet", F, F, F, "different calls"},
    {Bug::mma_by_some_lanes, "mma by 31 lanes", F, F, F, "mma_16816"},
    {Bug::misaligned_vector, "misaligned vector", F, F, F, "misaligned 16-byte load"},
    {Bug::too_little_shared, "too little shared memory", F, F, F, "dynamic_shared of"},
    {Bug::copy_not_waited_for, "copy not waited for", W, W, F, "shared memory"},
    {Bug::copy_without_barrier, "copy without a barrier", W, W, F, "shared memory"},
    {Bug::two_blocks_one_place, "two blocks write one place", S, S, F, "two blocks write"},
    {Bug::no_fence_before_ticket, "no fence before the ticket", S, S, F, "__threadfence()"},
    {Bug::ticket_not_reset, "ticket not reset", W, W, W, ""},
    {Bug::host_pointer_in_parameters, "host pointer in the parameters", S, S, F, "host memory"},
    {Bug::local_of_another_thread, "local of another thread", S, S, F, "local variable of thread"},
    {Bug::shift_too_far, "shift too far", S, F, S, ""},
};

}  // namespace

TEST_CASE("emulated device: every planted mistake is found where the table says, and its clean twin is silent") {
  for (const Row& row : kRows) {
    CAPTURE(std::string(row.name));
    const Verdict wanted = kBuild == Build::plain ? row.plain : kBuild == Build::asan ? row.asan : row.race;
    std::string text, clean;
    const Verdict found = verdict_of(row.bug, false, &text);
    INFO(text);
    CHECK(std::string(to_string(found)) == to_string(wanted));
    const bool own_words = kBuild == Build::race || (kBuild == Build::plain && row.plain == F);
    if (own_words && found == F && wanted == F && kBuild == (row.plain == F ? Build::plain : Build::race))
      CHECK_MESSAGE(text.find(row.says) != std::string::npos, cat("expected in the message: ", row.says));
    const Verdict twin = verdict_of(row.bug, true, &clean);
    INFO(clean);
    CHECK(std::string(to_string(twin)) == "silent");
  }
}

TEST_CASE("emulated device: after a fault the next launch is right") {
  if (kBuild == Build::asan)
    return;  // a fiber that is dropped leaves what it allocated, which LeakSanitizer would report
  for (const Bug bug : {Bug::divergent_barrier, Bug::mma_by_some_lanes, Bug::exit_before_barrier}) {
    CHECK(run_here(bug, false, 0) == 2);
    CHECK(run_here(bug, true, 0) == 0);
  }
}

}  // namespace eg::emulated_backend
