// engine/collectives/mpi.cpp - see mpi.h. Everything large is made of one step, exchange(): each rank sends one piece to
// every other and receives one from each.
#include "engine/collectives/mpi.h"

#include "engine/error.h"

#ifdef EVERGRAD_HAVE_MPI
#include <mpi.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <functional>
#include <limits>

#include "engine/collectives/ordered_sum.h"

namespace eg {
namespace {

/// Elements that one message holds at most: MPI counts bytes in an int, and receive buffers should stay small.
constexpr std::int64_t kPiece = std::int64_t(1) << 22;
/// Up to so many received bytes a sum is taken by everybody from everything: one round instead of two.
constexpr std::int64_t kSmall = std::int64_t(1) << 14;

class Mpi final : public Collectives {
 public:
  explicit Mpi(Device device) : device_(device) {
    int initialised = 0, provided = 0;
    call("MPI_Initialized", MPI_Initialized(&initialised));
    check(!initialised, Kind::internal, [] { return std::string("MPI is initialised twice in one process"); });
    // A watchdog may abort from a thread of its own.
    call("MPI_Init_thread", MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided));
    call("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    call("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &comm_));
    call("MPI_Comm_set_errhandler", MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN));
    call("MPI_Comm_rank", MPI_Comm_rank(comm_, &rank_));
    call("MPI_Comm_size", MPI_Comm_size(comm_, &size_));
  }
  ~Mpi() override {
    MPI_Comm_free(&comm_);
    MPI_Finalize();
  }
  Mpi(const Mpi&) = delete;
  Mpi& operator=(const Mpi&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool deterministic() const override { return true; }
  std::string name() const override { return "mpi"; }

  void all_reduce(void* data, std::int64_t count, DType dtype, Stream s) override {
    check_summable(dtype, "all_reduce");
    on_stream(s, "all_reduce", [=, this] {
      if (size_ == 1 || count == 0) return;
      auto* const bytes = static_cast<std::byte*>(data);
      if (count * std::int64_t(size_of(dtype)) * size_ <= kSmall) return sum_small(bytes, count, dtype);
      for_each_piece(data, count, dtype, [&](const auto& piece, const auto& length) {
        sum_parts(piece, length, piece(rank_), dtype);
        gather(piece, length, dtype);
      });
    });
  }
  void reduce_scatter(void* data, std::int64_t count, DType dtype, Stream s) override {
    check_summable(dtype, "reduce_scatter");
    on_stream(s, "reduce_scatter", [=, this] {
      for_each_piece(data, count, dtype,
                     [&](const auto& piece, const auto& length) { sum_parts(piece, length, piece(rank_), dtype); });
    });
  }
  void all_gather(void* data, std::int64_t count, DType dtype, Stream s) override {
    on_stream(s, "all_gather", [=, this] {
      for_each_piece(data, count, dtype, [&](const auto& piece, const auto& length) { gather(piece, length, dtype); });
    });
  }
  void broadcast(void* data, std::int64_t bytes, int root, Stream s) override {
    check(root >= 0 && root < size_, Kind::internal,
          [&] { return cat("a broadcast from rank ", root, " of ", size_, " ranks"); });
    on_stream(s, "broadcast", [=, this] {
      for (std::int64_t at = 0; at < bytes; at += kPiece)
        call("MPI_Bcast",
             MPI_Bcast(static_cast<std::byte*>(data) + at, int(std::min(kPiece, bytes - at)), MPI_BYTE, root, comm_));
    });
  }

  void barrier() override { call("MPI_Barrier", MPI_Barrier(comm_)); }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    const std::size_t n = std::size_t(size_);
    std::vector<std::int64_t> lengths(n);
    const std::int64_t length = std::int64_t(mine.size());
    call("MPI_Allgather", MPI_Allgather(&length, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, comm_));
    std::vector<int> counts(n), starts(n);
    std::int64_t total = 0;
    for (std::size_t r = 0; r < n; ++r) {
      counts[r] = int(lengths[r]), starts[r] = int(total), total += lengths[r];
      check(total <= std::numeric_limits<int>::max(), Kind::internal,
            [&] { return cat("the texts of all ranks are longer than MPI can count, ", total, " bytes"); });
    }
    std::string all(std::size_t(total), '\0');
    call("MPI_Allgatherv", MPI_Allgatherv(mine.data(), counts[std::size_t(rank_)], MPI_BYTE, all.data(), counts.data(),
                                          starts.data(), MPI_BYTE, comm_));
    std::vector<std::string> texts;
    for (std::size_t r = 0; r < n; ++r) texts.push_back(all.substr(std::size_t(starts[r]), std::size_t(counts[r])));
    return texts;
  }
  void sum_on_host(std::span<double> values) override {
    const int n = int(values.size());
    if (size_ == 1 || n == 0) return;
    std::vector<double> all(values.size() * std::size_t(size_));
    call("MPI_Allgather", MPI_Allgather(values.data(), n, MPI_DOUBLE, all.data(), n, MPI_DOUBLE, comm_));
    std::vector<const void*> parts;
    for (int r = 0; r < size_; ++r) parts.push_back(all.data() + std::size_t(n) * std::size_t(r));
    ordered_sum(parts, values.data(), n, DType::f64);
  }
  std::int64_t bytes_sent() const override { return sent_; }
  void abort(const std::string&) noexcept override { MPI_Abort(MPI_COMM_WORLD, 1); }
  std::shared_ptr<const std::atomic<std::uint64_t>> complete() const { return complete_; }

 private:
  struct Piece {
    std::byte* data;
    std::int64_t bytes;
  };

  void call(const char* what, int code) const {
    if (code == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    fail(Kind::io, cat("MPI: ", what, " failed on rank ", rank_, " of ", size_, ": ", text.data(),
                       "; another rank may have ended, see its message"));
  }

  void on_stream(Stream s, const char* name, std::function<void()> work) const {
    if (device_.is_host())
      work(), ++*complete_;
    else
      runtime(device_).call_host(s, name, [work = std::move(work), complete = complete_] { work(), ++*complete; });
  }

  /// Sends send(r) to and receives receive(r) from every other rank r.
  void exchange(const std::function<Piece(int)>& send, const std::function<Piece(int)>& receive) {
    std::vector<MPI_Request> open;
    const auto add = [&](const char* what, const std::function<int(MPI_Request*)>& begin) {
      MPI_Request request = MPI_REQUEST_NULL;
      call(what, begin(&request));
      open.push_back(request);
    };
    for (int d = 1; d < size_; ++d) {  // everybody begins with another neighbour
      const int from = (rank_ + size_ - d) % size_;
      const Piece p = receive(from);
      if (p.bytes)
        add("MPI_Irecv", [&](MPI_Request* q) { return MPI_Irecv(p.data, int(p.bytes), MPI_BYTE, from, 0, comm_, q); });
    }
    for (int d = 1; d < size_; ++d) {
      const int to = (rank_ + d) % size_;
      const Piece p = send(to);
      sent_ += p.bytes;
      if (p.bytes)
        add("MPI_Isend", [&](MPI_Request* q) { return MPI_Isend(p.data, int(p.bytes), MPI_BYTE, to, 0, comm_, q); });
    }
    call("MPI_Waitall", MPI_Waitall(int(open.size()), open.data(), MPI_STATUSES_IGNORE));
  }

  /// Goes through data [count] so that of every rank's part one piece of at most kPiece elements is dealt with at a time:
  /// body(where rank r's begins, how long it is). As many turns on all ranks, though some parts are shorter.
  template <class Body>
  void for_each_piece(void* data, std::int64_t count, DType dtype, const Body& body) const {
    if (size_ == 1) return;
    const std::int64_t width = std::int64_t(size_of(dtype)), longest = RankPart::of(count, 0, size_).size;
    for (std::int64_t at = 0; at < longest; at += kPiece) {
      const auto piece = [&](int r) {
        const RankPart p = RankPart::of(count, r, size_);
        return static_cast<std::byte*>(data) + (p.begin + std::min(at, p.size)) * width;
      };
      const auto length = [&](int r) {
        return std::clamp<std::int64_t>(RankPart::of(count, r, size_).size - at, 0, kPiece);
      };
      body(piece, length);
    }
  }

  /// The piece that each rank has goes to all the others.
  void gather(const std::function<std::byte*(int)>& piece, const std::function<std::int64_t(int)>& length,
              DType dtype) {
    const auto at = [&](int r) { return Piece{piece(r), length(r) * std::int64_t(size_of(dtype))}; };
    exchange([&](int) { return at(rank_); }, at);
  }

  /// out = sum over ranks of their part(rank of this one), which has length(r) elements on rank r.
  void sum_parts(const std::function<std::byte*(int)>& part, const std::function<std::int64_t(int)>& length,
                 std::byte* out, DType dtype) {
    const std::int64_t width = std::int64_t(size_of(dtype)), n = length(rank_);
    scratch_.resize(std::size_t(n * width * size_));
    const auto received = [&](int r) { return scratch_.data() + n * width * r; };
    exchange(
        [&](int r) {
          return Piece{part(r), length(r) * width};
        },
        [&](int r) {
          return Piece{received(r), n * width};
        });
    std::vector<const void*> parts;
    for (int r = 0; r < size_; ++r) parts.push_back(r == rank_ ? part(r) : received(r));
    ordered_sum(parts, out, n, dtype);
  }

  void sum_small(std::byte* data, std::int64_t count, DType dtype) {
    const int bytes = int(count * std::int64_t(size_of(dtype)));
    scratch_.resize(std::size_t(bytes) * std::size_t(size_));
    call("MPI_Allgather", MPI_Allgather(data, bytes, MPI_BYTE, scratch_.data(), bytes, MPI_BYTE, comm_));
    sent_ += std::int64_t(bytes) * (size_ - 1);
    std::vector<const void*> parts;
    for (int r = 0; r < size_; ++r) parts.push_back(scratch_.data() + std::int64_t(bytes) * r);
    ordered_sum(parts, data, count, dtype);
  }

  Device device_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  const std::shared_ptr<std::atomic<std::uint64_t>> complete_ = std::make_shared<std::atomic<std::uint64_t>>(0);
  std::atomic<std::int64_t> sent_{0};  // written where the work runs, which may be a stream's thread
  std::vector<std::byte> scratch_;     // what others sent; host memory of every device that comes here
};

}  // namespace

bool have_mpi() { return true; }

std::unique_ptr<Collectives> mpi_ranks(Device device) {
  check(device.is_host() || device.type == DeviceType::emulated, Kind::device,
        [&] { return cat("MPI ranks compute on cpu or emulated, whose memory MPI can read, not on ", device); });
  return std::make_unique<Mpi>(device);
}

std::function<std::uint64_t()> mpi_progress(const Collectives& mpi) {
  return [complete = dynamic_cast<const Mpi&>(mpi).complete()] { return complete->load(); };
}

}  // namespace eg

#else

namespace eg {

bool have_mpi() { return false; }

std::unique_ptr<Collectives> mpi_ranks(Device) {
  fail(Kind::usage,
       "this evergrad was built without MPI; install it (Debian: libopenmpi-dev, openmpi-bin) and build again");
}

std::function<std::uint64_t()> mpi_progress(const Collectives&) { return {}; }

}  // namespace eg
#endif
