// engine/collectives/handshake.h - what ranks tell each other before they make a communicator, and when they refuse to.
//
// Ranks that differ in version, binary, configuration or kind of device would hang or compute nonsense later; two ranks on one
// GPU by mistake make NCCL fail with words that name neither. So each lays a card on the table first.
#pragma once
#include <string>
#include <vector>

#include "engine/collectives/store.h"
#include "engine/device.h"

namespace eg {

struct RankCard {
  int rank = 0, local_rank = 0;
  std::string host;
  std::int64_t pid = 0;
  std::string version, build;  // build: type, compiler and a checksum of the program's file
  std::string config;          // a hash of the resolved configuration, or empty
  std::string device;          // "cpu", "cuda:3"
  std::string bus_id;          // the GPU's PCI address "0000:3b:00.0", or empty
  std::string address;         // this host's on the way to the store, or "-" (NCCL and MPI choose their own networks)
};

/// This process's card. `config` is the text of the configuration that all ranks must share (its hash goes on the card).
RankCard card_of(const Launch& launch, Device device, const std::string& config);
/// All cards, in order of ranks, each with its address towards this store. Throws Error{io} as Store::gather does.
std::vector<RankCard> exchange_cards(Store& store, const RankCard& mine, const Deadline& deadline);
/// Throws Error{usage}: cards differ in version, build, config or kind of device, or two ranks of a host have the same bus id
/// (unless share_gpu: NCCL's test mode). The message names values and ranks; that of rank 0 ends in the table, so that a job's
/// output holds it once.
void check_cards(const std::vector<RankCard>& cards, int my_rank, bool share_gpu = false);
/// One line per rank: rank, host, address, pid, device, bus id, version, config, build.
std::string card_table(const std::vector<RankCard>& cards);

/// The device that a rank takes: "cuda" without a number is the GPU of its local rank; everything else as parse_device.
Device device_of_rank(const Launch& launch, const std::string& text);
/// Devices with a PCI address say it here when they are registered.
void set_bus_id(Device device, const std::string& bus_id);

}  // namespace eg
