// tests/emulated/test_planted.cpp - every planted mistake is found by the builds that can find it; every clean twin is
// silent.
//
// A kernel runs in a process of its own, because AddressSanitizer ends it. The verdicts:
//   fault    the emulated device names kernel, thread and place (or AddressSanitizer or UBSan stops the program)
//   wrong    the result is not what it must be
//   seeds    in some random order of the threads the result is wrong
//   silent   this build does not see it
// Where all three say wrong, nothing but the comparison with the right result can find it: every access is legal.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
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

/// What the kernel's shared memory takes, exactly: beyond it lies what its block may not touch.
std::size_t shared_bytes(Bug bug) {
  return planted_tiles_kernel(bug, false) ? sizeof(PlantedTiles) : sizeof(PlantedShared);
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
  std::vector<float> partials(kBlocks + 1), totals(kPlantedThreads);
  const std::size_t partial_bytes = partials.size() * sizeof(float), total_bytes = totals.size() * sizeof(float);
  p.partials = static_cast<float*>(r.allocate(partial_bytes));
  p.rows = static_cast<float*>(r.allocate(bytes)), p.totals = static_cast<float*>(r.allocate(total_bytes));
  void* const freed = r.allocate(bytes);
  p.freed = static_cast<const float*>(freed);
  p.ticket = static_cast<unsigned*>(r.allocate(sizeof(unsigned)));
  p.nothing = nullptr, p.host = in.data(), p.n = kN, p.one = 1;
  try {
    r.set_zero(p.ticket, sizeof(unsigned), {});
    r.copy_from_host(const_cast<float*>(p.in), in.data(), bytes, {});
    r.synchronize({});
    r.release(freed);
    const std::size_t shared = bug == Bug::too_little_shared && !fixed ? 16 : shared_bytes(bug);
    for (int launches = 0; launches < 2; ++launches) {
      r.set_zero(p.partials, partial_bytes, {});
      r.set_zero(p.rows, bytes, {});  // else the second launch would find there what the first has left
      r.set_zero(p.totals, total_bytes, {});
      if (planted_cooperative(bug, fixed))
        launch_cooperative("planted", planted_kernel(bug, fixed), dim3(kBlocks), dim3(kPlantedThreads), shared, {}, p);
      else
        launch("planted", planted_kernel(bug, fixed), dim3(kBlocks), dim3(kPlantedThreads), shared, {}, p);
    }
    r.copy_to_host(partials.data(), p.partials, partial_bytes, {});
    r.copy_to_host(totals.data(), p.totals, total_bytes, {});
    r.copy_to_host(out.data(), p.out, bytes, {});
    r.release(p.out);
    r.release(const_cast<float*>(p.in));
    r.set_zero(p.ticket, sizeof(unsigned), {});  // the next operation reports what a release found
    r.synchronize({});
    for (std::int64_t i = 0; i < kN; ++i)
      if (!(out[std::size_t(i)] == expected(bug, i, kBlocks))) return 1;
    for (std::int64_t t = 0; t < kPlantedThreads; ++t)
      if (!(totals[std::size_t(t)] == expected_total(bug, t, kBlocks))) return 1;
    if (!(partials[kBlocks] == expected_sum(bug, kBlocks))) return 1;
    if (bug == Bug::two_blocks_one_place && !(partials[0] == float(kBlocks - 1))) return 1;
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
  return 0;
}

Verdict verdict_of(Bug bug, bool fixed, std::string* text) {
  constexpr int kSeeds = 3;
  const Outcome o = run_apart([&] {
    for (std::uint64_t seed = 0; seed <= 8; ++seed)
      if (const int code = run_here(bug, fixed, seed)) return code == 1 && seed > 0 ? kSeeds : code;
    return 0;
  });
  *text = o.text;
  if (o.code == 0) return Verdict::silent;
  if (o.code == 1) return Verdict::wrong;
  if (o.code == kSeeds) return Verdict::seeds;
  CHECK_MESSAGE((o.code == 2 || o.sanitizer()), cat("ended with ", o.code, "\n", o.text));
  return Verdict::fault;
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
    {Bug::shared_never_written, "shared memory that nobody wrote", W, W, F, "no thread of the block has written"},
    {Bug::global_write_outside, "global write outside", F, F, F, "behind the end of a device block"},
    {Bug::global_read_outside, "global read outside", W, F, F, "outside a device block"},
    {Bug::load_guard_off_by_one, "load guard off by one", W, F, F, "outside a device block"},
    {Bug::store_guard_off_by_one, "store guard off by one", F, F, F, "behind the end of a device block"},
    {Bug::freed_memory, "memory that was given back", W, F, F, "outside a device block"},
    {Bug::no_barrier_before_read, "no barrier before reading", W, W, F, "shared memory"},
    {Bug::no_barrier_writer_first, "no barrier, writer runs first", N, N, F, "shared memory"},
    {Bug::no_barrier_before_reuse, "no barrier before reuse", W, W, F, "shared memory"},
    {Bug::no_warp_barrier, "no warp barrier", W, W, F, "shared memory"},
    {Bug::shuffle_as_fence, "shuffle used as a fence", S, S, F, "shared memory"},
    {Bug::divergent_barrier, "divergent barrier", F, F, F, "divergent __syncthreads()"},
    {Bug::half_barrier, "half a block at a barrier", F, F, F, "exits while others wait at a barrier"},
    {Bug::exit_before_barrier, "exit before a barrier", F, F, F, "exit"},
    {Bug::shuffle_with_exited_lane, "shuffle with an exited lane", F, F, F, "exited"},
    {Bug::shuffle_outside_its_mask, "shuffle outside its mask", F, F, F, "does not name the calling lane 7"},
    {Bug::shuffle_reads_outside_mask, "shuffle reads outside its mask", F, F, F, "not in the mask"},
    {Bug::shuffles_at_two_places, "two shuffles meet", F, F, F, "different calls"},
    {Bug::shuffle_against_barrier, "shuffle against a barrier", F, F, F, "deadlock"},
    {Bug::mma_by_some_lanes, "mma by 31 lanes", F, F, F, "mma_16816"},
    {Bug::matrix_load_by_some_lanes, "ldmatrix by 31 lanes", F, F, F, "ldmatrix"},
    {Bug::misaligned_vector, "misaligned vector", F, F, F, "misaligned 16-byte load"},
    {Bug::misaligned_store, "misaligned store", F, F, F, "misaligned 16-byte store"},
    {Bug::misaligned_copy, "misaligned copy", F, F, F, "no multiple of 16 bytes"},
    {Bug::misaligned_matrix_row, "misaligned row of a matrix", F, F, F, "no multiple of 16 bytes"},
    {Bug::too_little_shared, "too little shared memory", F, F, F, "dynamic_shared of"},
    {Bug::copy_not_waited_for, "copy not waited for", W, W, F, "shared memory"},
    {Bug::copy_waited_too_little, "copy waited for with one group too many in flight", W, W, F, "shared memory"},
    {Bug::copy_without_barrier, "copy without a barrier", W, W, F, "shared memory"},
    {Bug::copy_left_in_flight, "copy in flight at the end", F, F, F, "copies in flight"},
    {Bug::prefetch_into_live_stage, "prefetch into the stage that is read", W, W, F, "shared memory"},
    {Bug::tail_mask_off_by_one, "tail mask off by one", W, W, W, ""},
    {Bug::dropped_trans, "dropped .trans", W, W, W, ""},
    {Bug::swizzle_on_one_side, "swizzle on one side", W, W, W, ""},
    {Bug::two_blocks_one_place, "two blocks write one place", N, N, F, "two blocks write"},
    {Bug::two_blocks_one_partial, "two blocks write one partial sum", W, W, F, "two blocks write"},
    {Bug::no_fence_before_ticket, "no fence before the ticket", S, S, F, "__threadfence()"},
    {Bug::no_fence_after_ticket, "no fence after the ticket", S, S, F, "__threadfence()"},
    {Bug::no_barrier_before_ticket, "no barrier before the ticket", S, S, F, "a block reads what another block writes"},
    {Bug::no_barrier_after_ticket, "no barrier after the ticket", S, S, F, "shared memory"},
    {Bug::ticket_not_reset, "ticket not reset", W, W, W, ""},
    {Bug::no_grid_barrier, "no grid barrier before reading", W, W, F, "a grid_barrier() is missing"},
    {Bug::no_second_grid_barrier, "no grid barrier before reuse", W, W, F, "device memory"},
    {Bug::deserted_grid_barrier, "a block ends before a grid barrier", F, F, F, "4 of 5 blocks wait in grid_barrier()"},
    {Bug::half_grid_barrier, "half a block at a grid barrier", F, F, F, "exit"},
    {Bug::divergent_grid_barrier, "divergent grid barrier", F, F, F, "divergent grid_barrier()"},
    {Bug::fault_behind_grid_barrier, "a fault while other blocks wait", F, F, F, "misaligned 16-byte store"},
    {Bug::grid_barrier_of_ordinary_launch, "grid barrier of an ordinary launch", F, F, F, "launch_cooperative()"},
    {Bug::waits_for_another_block, "a block waits for another", F, F, F, "nothing but spin_pause()"},
    {Bug::null_pointer_in_parameters, "null pointer in the parameters", F, F, F, "null pointer"},
    {Bug::host_pointer_in_parameters, "host pointer in the parameters", S, S, F, "host memory"},
    {Bug::local_of_another_thread, "local of another thread", S, S, F, "local variable of thread"},
    {Bug::shift_too_far, "shift too far", S, F, S, ""},
};
static_assert(std::size(kRows) == std::size_t(Bug::shift_too_far) + 1, "every mistake has a row");

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

TEST_CASE("emulated device: after any fault the next launch is right, and AddressSanitizer has nothing to say") {
  for (const Row& row : kRows) {
    CAPTURE(std::string(row.name));
    // What AddressSanitizer itself finds ends the program.
    const bool ends =
        kBuild == Build::asan && (row.bug == Bug::global_write_outside || row.bug == Bug::store_guard_off_by_one ||
                                  row.bug == Bug::null_pointer_in_parameters || row.plain != F);
    if (ends || (kBuild == Build::race ? row.race : row.plain) != F) continue;
    const Outcome o = run_apart([&] {
      for (std::uint64_t seed = 0; seed < 3; ++seed) {
        if (run_here(row.bug, false, seed) != 2) return 50;
        if (const int code = run_here(row.bug, true, seed)) return code;
      }
      return 0;
    });
    INFO(o.text);
    CHECK(o.code == 0);
    CHECK_FALSE(o.sanitizer());
  }
}

TEST_CASE("emulated device: the documentation counts the planted mistakes right") {
  std::ifstream file(EVERGRAD_SOURCE_DIR "/docs/debug-a-kernel.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  CHECK(text.find(cat(std::size(kRows), " kernels with one bug each")) != std::string::npos);
}

}  // namespace eg::emulated_backend
