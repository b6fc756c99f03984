// The processes of an MPI job, and what one of them sends to the others. Every operation of the job is a **meeting**:
// each rank first sends each other a message that says which operation it is at. Only if all are at the same does data
// follow; otherwise every rank throws the same error. The data of small operations is in the message.
//
// One thread, that of the device (backend.h), makes all calls between the start and the end. It polls and sleeps, because
// MPI makes progress only inside calls, and a thread that blocks in one takes a core.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/mpi/library.h"
#include "base/module_api.h"
#include "ops/distributed.h"

namespace owl::mpi {

// An operand, and its result, of one operation.
struct Part {
  const std::byte* in;
  std::byte* out;
  std::int64_t count;  // elements of the operand
  DType dtype;

  std::size_t bytes() const { return static_cast<std::size_t>(count) * itemsize(dtype); }
};

// What a rank says of its operation.
struct Meeting {
  std::string text;     // "distributed.all_reduce of float32 [3] (train.py:31)"
  std::string identity; // what must be the same on all ranks
  std::string failure;  // of this rank, if it cannot take part
  bool ends = false;    // the rank's script has ended
};

class OWL_MODULE_API Group {
 public:
  // Starts MPI, unless another library of this process has. Throws Error if the ranks have other versions of owl.
  Group(const Library& library, double warn_after, const std::string& version);
  int rank() const { return rank_; }
  int size() const { return size_; }
  const Library& library() const { return library_; }

  // Each throws Error if the ranks do not match, or one has failed, now or in an earlier meeting.
  void meet(const Meeting& meeting);
  void all_reduce(const Meeting& meeting, std::span<const Part> parts, distributed::Combine how);
  void reduce_scatter(const Meeting& meeting, std::span<const Part> parts);  // sums; `out` is this rank's part of one
  void all_gather(const Meeting& meeting, std::span<const Part> parts);
  void broadcast(const Meeting& meeting, std::span<const Part> parts, int root);

  // Any thread: a wait for other ranks ends with an error.
  void give_up() { given_up_ = true; }
  bool is_broken() const { return broken_flag_; }
  // The thread that started MPI.
  void finalize();
  [[noreturn]] void abort();

 private:
  struct Message;
  struct Received;
  struct Share;
  using Requests = std::vector<Handle>;

  std::vector<Received> exchange(const Meeting& meeting, std::span<const std::byte> payload);
  void compare(const std::vector<Received>& all);
  void require_same_version(const std::string& own);
  [[noreturn]] void fail(const std::string& why);
  template <class Stalled> void finish(Requests& requests, Stalled stalled);
  void finish(Requests& requests);
  void send(const void* data, std::size_t bytes, int to, int tag, Requests& requests);
  void receive(void* data, std::size_t bytes, int from, int tag, Requests& requests);
  void reduce_small(const Meeting& meeting, std::span<const Part> parts, distributed::Combine how);
  void reduce_large(std::span<const Part> parts, distributed::Combine how);
  void reduce_in_place(std::span<const Part> arrays, distributed::Combine how, bool gathers = true);

  const Library& library_;
  const int process_;
  Handle messages_ = 0, data_ = 0;  // communicators
  int rank_ = 0, size_ = 1;
  bool owns_mpi_ = false;
  double warn_after_;
  std::uint64_t meetings_ = 0;
  std::vector<std::string> last_;  // what each rank said last
  std::vector<std::byte> arrived_;  // blocks of the others, to be added
  std::string broken_;             // why no further meeting is possible
  std::atomic<bool> broken_flag_{false}, given_up_{false};
};

}  // namespace owl::mpi
