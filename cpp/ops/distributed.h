// Operations over the processes of an MPI job, its ranks. Each is an effect: issued by one thread of each process, in
// recorded order (backend/mpi/).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/module_api.h"
#include "graph/op.h"
#include "graph/record.h"

namespace owl::distributed {

enum class Combine : std::uint8_t { kSum, kMax, kMin };

struct RankParams : Params {
  Combine combine = Combine::kSum;
  int root = 0;      // of a broadcast
  int ranks = 1;     // of the job
  std::string names;      // of the arrays in the script's structure: the same on all ranks
  bool anywhere = false;  // whether ranks may record it at different lines
  std::string text;  // of `end`: why this rank ends, if it failed

  void visit(const ParamVisitor& field) const override {
    field("combine", static_cast<std::int64_t>(combine));
    field("root", static_cast<std::int64_t>(root));
    field("ranks", static_cast<std::int64_t>(ranks));
    field("names", std::string_view(names));
    field("anywhere", anywhere);
    field("text", std::string_view(text));
  }
};

// The job, once this process has joined it. Recorded operations are computed by `device`, which scripts do not see.
struct Job {
  Device& device;
  int rank, size;
  EffectToken token{};
};
OWL_MODULE_API void join(Device& device, int rank, int size);
OWL_MODULE_API Job* job();  // null: not joined

// Arrays of the same shapes and types on every rank; the results are on the operands' devices. One call is one meeting
// of the ranks.
OWL_MODULE_API std::vector<NArray> all_reduce(const std::vector<NArray>& arrays, RankParams how);
// Of the sum, this rank's part along the last axis. ShapeError: its length is no multiple of the number of ranks.
OWL_MODULE_API std::vector<NArray> reduce_scatter(const std::vector<NArray>& arrays, RankParams how);
OWL_MODULE_API std::vector<NArray> all_gather(const std::vector<NArray>& arrays, RankParams how);  // joined along the last axis
OWL_MODULE_API std::vector<NArray> broadcast(const std::vector<NArray>& arrays, RankParams how);
// A value without meaning, computed when every rank has come here.
OWL_MODULE_API NArray barrier();
// The same at the end of this rank's script, which failed if `failure` is not empty.
OWL_MODULE_API NArray end(const std::string& failure);

// Of these only the MPI backend has kernels.
extern const OpRecord op_all_reduce, op_reduce_scatter, op_all_gather, op_broadcast, op_barrier, op_end;

}  // namespace owl::distributed
