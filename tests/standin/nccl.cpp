// NCCL: the sum over the devices of a clique. Each rank's stream waits until all ranks have joined.
#include "standin.h"

#include <nccl.h>

#include <cstring>

using namespace standin;

namespace {

// One sum. Lives as long as its clique, because ranks leave it without synchronising.
struct Round {
  explicit Round(std::size_t ranks) : here(ranks), from(ranks), to(ranks) {}

  std::vector<Flag> here;
  Flag done;
  std::vector<const void*> from;
  std::vector<void*> to;
  std::size_t count = 0;
  ncclDataType_t type = ncclFloat32;
};

struct Clique {
  explicit Clique(std::size_t ranks) : ranks(ranks) {}

  const std::size_t ranks;
  std::deque<std::unique_ptr<Round>> rounds;
};

struct Call {
  const void* from;
  void* to;
  std::size_t count;
  ncclDataType_t type;
  ncclComm_t rank;
  CUstream stream;
};

thread_local int depth = 0;  // of groups
thread_local std::vector<Call> grouped;
thread_local ncclResult_t broken = ncclSuccess;  // the first error within the group, which then does nothing

std::size_t size_of(ncclDataType_t type) {
  return type == ncclFloat32 || type == ncclInt32 ? 4 : type == ncclFloat64 || type == ncclInt64 ? 8 : 0;
}

template <class T> void sum(const Round& round) {
  std::vector<T> sums(round.count);
  for (std::size_t rank = 0; rank < round.from.size(); ++rank)
    for (std::size_t i = 0; i < round.count; ++i) {
      const T x = static_cast<const T*>(round.from[rank])[i];
      if (rank == 0) sums[i] = x;
      else if constexpr (std::is_integral_v<T>)
        sums[i] = static_cast<T>(static_cast<std::make_unsigned_t<T>>(sums[i]) + static_cast<std::make_unsigned_t<T>>(x));
      else sums[i] += x;
    }
  for (void* const to : round.to) std::memcpy(to, sums.data(), round.count * sizeof(T));
}

// The first rank computes for all.
void take_part(Round& round, std::size_t rank) {
  round.here[rank].set();
  if (rank != 0) return round.done.wait();
  for (const Flag& each : round.here) each.wait();
  if (round.type == ncclFloat32) sum<float>(round);
  else if (round.type == ncclFloat64) sum<double>(round);
  else if (round.type == ncclInt64) sum<std::int64_t>(round);
  else sum<std::int32_t>(round);
  round.done.set();
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Clique> clique;
  std::size_t rank;
  int device;
  std::size_t calls = 0;  // the rounds that this rank has joined
};

namespace {

ncclResult_t enqueue(const Call& call) {
  Lock lock(world().mutex);
  ncclComm& rank = *call.rank;
  Clique& clique = *rank.clique;
  const CUcontext context = world().contexts[static_cast<std::size_t>(rank.device)].get();
  // For the duration of the call, as NCCL does.
  const CUcontext before = std::exchange(current, context);
  const CUstream stream = world().find(call.stream);
  const auto bytes = call.count * size_of(call.type);
  const auto holds = [&](const void* data) { return world().holds(data, bytes, rank.device); };
  auto result = ncclSuccess;
  if (!stream || stream->context != context) {
    result = ncclInvalidArgument;
  } else if (stream->capture) {  // a round cannot repeat
    stream->capture->invalid = true;
    result = ncclInvalidUsage;
  } else if (bytes > 0 && !(holds(call.from) && holds(call.to))) {
    result = ncclInvalidArgument;
  } else {
    if (rank.calls == clique.rounds.size()) {
      auto& round = *clique.rounds.emplace_back(std::make_unique<Round>(clique.ranks));
      round.count = call.count;
      round.type = call.type;
    }
    Round& round = *clique.rounds[rank.calls];
    if (round.count != call.count || round.type != call.type) {
      result = ncclInvalidArgument;
    } else {
      ++rank.calls;
      round.from[rank.rank] = call.from;
      round.to[rank.rank] = call.to;
      Step step;
      step.work = [&round, mine = rank.rank] { take_part(round, mine); };
      const auto text = "all reduce " + std::to_string(call.count) +
                        (call.type == ncclFloat32   ? " float32"
                         : call.type == ncclFloat64 ? " float64"
                         : call.type == ncclInt64   ? " int64"
                                                    : " int32") +
                        " rank " + std::to_string(rank.rank);
      if (world().enqueue(stream, std::move(step), text) != CUDA_SUCCESS) result = ncclUnhandledCudaError;
    }
  }
  current = before;
  return result;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  STANDIN_LIBRARY(ncclResult_t, ncclGetVersion);
  if (!version) return ncclInvalidArgument;
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    default: return "unknown result code";
  }
}

ncclResult_t ncclCommInitAll(ncclComm_t* ranks, int count, const int* devices) {
  STANDIN_LIBRARY(ncclResult_t, ncclCommInitAll);
  if (!ranks || count < 1) return ncclInvalidArgument;
  if (world().process.load() == 0) return ncclUnhandledCudaError;
  std::set<int> different;
  for (int i = 0; i < count; ++i) {
    const int device = devices ? devices[i] : i;
    if (device < 0 || static_cast<std::size_t>(device) >= world().contexts.size()) return ncclInvalidArgument;
    if (!different.insert(device).second) return ncclInvalidUsage;
  }
  const auto clique = std::make_shared<Clique>(static_cast<std::size_t>(count));
  Lock lock(world().mutex);
  world().dead.push_back(clique);  // streams may never leave a round
  for (int i = 0; i < count; ++i)
    ranks[i] = new ncclComm{clique, static_cast<std::size_t>(i), devices ? devices[i] : i};
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t rank) {
  STANDIN_LIBRARY(ncclResult_t, ncclCommDestroy);
  delete rank;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  STANDIN_LIBRARY(ncclResult_t, ncclGroupStart);
  ++depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  STANDIN_LIBRARY(ncclResult_t, ncclGroupEnd);
  if (depth == 0) return ncclInvalidUsage;
  if (--depth > 0) return ncclSuccess;
  if (broken != ncclSuccess) {
    grouped.clear();
    return std::exchange(broken, ncclSuccess);
  }
  for (const Call& call : std::exchange(grouped, {}))
    if (const auto result = enqueue(call)) return result;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t rank, cudaStream_t stream) {
  static Counter counter("ncclAllReduce");
  if (const int planned = enter(counter, Needs::kNothing)) {
    if (depth > 0) broken = static_cast<ncclResult_t>(planned);
    return static_cast<ncclResult_t>(planned);
  }
  if (!rank || operation != ncclSum || size_of(type) == 0) return ncclInvalidArgument;
  const Call call{from, to, count, type, rank, stream};
  if (depth == 0) return enqueue(call);
  grouped.push_back(call);
  return ncclSuccess;
}
