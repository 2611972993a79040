// Which rank a process is, from what starters put into its environment.
#include <doctest/doctest.h>

#include <map>

#include "engine/collectives/launch.h"
#include "engine/error.h"

using namespace eg;

namespace {

using Environment = std::map<std::string, std::string>;

Launch in(const Environment& e) {
  return detect_launch([&](const char* name) -> std::optional<std::string> {
    const auto at = e.find(name);
    return at == e.end() ? std::nullopt : std::optional(at->second);
  });
}

/// The text of the error, or "".
std::string refused(const Environment& e) {
  try {
    in(e);
  } catch (const Error& error) {
    CHECK(error.kind == Kind::usage);
    return error.what();
  }
  return "";
}

bool says(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    if (text.find(part) == std::string::npos) return false;
  return true;
}

const Environment kTorch{{"RANK", "3"},         {"WORLD_SIZE", "8"},     {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "2"},
                         {"MASTER_ADDR", "n1"}, {"MASTER_PORT", "29500"}};
const Environment kMpi{{"OMPI_COMM_WORLD_RANK", "1"},
                       {"OMPI_COMM_WORLD_SIZE", "4"},
                       {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                       {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                       {"PMIX_NAMESPACE", "prterun-n1-77@1"}};
const Environment kSlurm{{"SLURM_PROCID", "5"},    {"SLURM_NTASKS", "16"},
                         {"SLURM_LOCALID", "1"},   {"SLURM_STEP_ID", "0"},
                         {"SLURM_JOB_ID", "4711"}, {"SLURM_STEP_NODELIST", "gpu[07-09,12],cpu3"}};

Environment with(Environment e, const Environment& more) {
  for (const auto& [name, value] : more) e[name] = value;
  return e;
}
Environment without(Environment e, const std::string& name) {
  e.erase(name);
  return e;
}

}  // namespace

TEST_CASE("launch: an empty environment is a process alone") {
  const Launch l = in({});
  CHECK(l.rank == 0);
  CHECK(l.size == 1);
  CHECK(l.how == "alone");
  CHECK(l.master_addr.empty());
}

TEST_CASE("launch: torchrun, mpirun, PMI and srun") {
  const Launch torch = in(kTorch);
  CHECK(describe(torch) == "rank 3 of 8 (local rank 1), started by torchrun, rank 0 listens at n1:29500");
  CHECK(torch.local_size == 2);
  CHECK(in(with(kTorch, {{"TORCHELASTIC_USE_AGENT_STORE", "True"}})).master_port == 29501);
  CHECK(in(with(kTorch, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).master_port == 29500);

  const Launch mpi = in(kMpi);
  CHECK(mpi.how == "mpirun");
  CHECK(mpi.rank == 1);
  CHECK(mpi.size == 4);
  CHECK(mpi.master_addr == "127.0.0.1");  // all ranks are on this machine
  CHECK(mpi.master_port >= 15000);
  CHECK(mpi.master_port < 30000);
  CHECK(in(with(kMpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}})).master_addr.empty());  // several machines: nobody knows

  const Launch pmi = in({{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALRANKID", "0"}});
  CHECK(pmi.how == "PMI");
  CHECK(pmi.rank == 2);

  const Launch slurm = in(kSlurm);
  CHECK(slurm.how == "srun");
  CHECK(slurm.rank == 5);
  CHECK(slurm.size == 16);
  CHECK(slurm.local_rank == 1);
  CHECK(slurm.local_size == 0);
  CHECK(slurm.master_addr == "gpu07");
  CHECK(slurm.nonce == "4711.0");
  CHECK(in(with(kSlurm, {{"SLURM_JOB_ID", "4712"}})).master_port != slurm.master_port);
  CHECK(in(with(kSlurm, {{"SLURM_STEP_NUM_TASKS", "8"}})).size == 8);
}

TEST_CASE("launch: what stands around a process did not start it") {
  CHECK(in(without(kSlurm, "SLURM_STEP_ID")).how == "alone");  // a batch script
  CHECK(in(with(kSlurm, kMpi)).how == "mpirun");               // mpirun inside an allocation
  const Launch both = in(with(
      kMpi, {{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "2"}}));
  CHECK(both.how == "torchrun");
}

TEST_CASE("launch: partial and contradictory environments name their variables") {
  CHECK(says(refused(without(kTorch, "WORLD_SIZE")), {"RANK is set", "WORLD_SIZE"}));
  CHECK(says(refused(without(kTorch, "RANK")), {"WORLD_SIZE is set", "RANK is not"}));
  CHECK(says(refused(without(kTorch, "LOCAL_RANK")), {"LOCAL_RANK is not"}));
  CHECK(says(refused(without(kTorch, "MASTER_PORT")), {"MASTER_ADDR is set", "MASTER_PORT is not"}));
  CHECK(says(refused(without(without(kTorch, "MASTER_PORT"), "MASTER_ADDR")), {"MASTER_ADDR and MASTER_PORT are not"}));
  CHECK(says(refused(with(kTorch, {{"RANK", "8"}})), {"RANK is 8", "WORLD_SIZE is 8"}));
  for (const char* bad : {"", "x", "-1", "1.5", "99999999999999999999", "3 "})
    CHECK(says(refused(with(kTorch, {{"RANK", bad}})), {"RANK is '", "whole number"}));
  CHECK(says(refused(with(kTorch, {{"MASTER_PORT", "65536"}})), {"MASTER_PORT is '65536'", "65535"}));
  CHECK(says(refused(with(kTorch, {{"LOCAL_RANK", "2"}})), {"LOCAL_RANK is 2", "LOCAL_WORLD_SIZE is 2"}));
  CHECK(says(refused(with(kTorch, kMpi)), {"rank 3 of 8", "OMPI_COMM_WORLD_RANK", "rank 1 of 4"}));
  CHECK(says(refused(without(kMpi, "OMPI_COMM_WORLD_SIZE")),
             {"OMPI_COMM_WORLD_RANK is set", "OMPI_COMM_WORLD_SIZE is not"}));
  CHECK(says(refused(without(kSlurm, "SLURM_NTASKS")), {"SLURM_PROCID is set", "SLURM_NTASKS is not"}));
}

TEST_CASE("launch: the first host of a Slurm node list") {
  CHECK(first_host("n1") == "n1");
  CHECK(first_host("n1,n2") == "n1");
  CHECK(first_host("n[07-09,12],m3") == "n07");
  CHECK(first_host("rack2-n[3]") == "rack2-n3");
  CHECK(first_host("n[") == "n");
  CHECK(first_host("") == "");
}
