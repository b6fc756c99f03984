// The sum of arrays on several GPUs, on all of them, by NCCL. One task calls it for each GPU, in one group, from one
// thread: either all GPUs take part or none does. The task runs even if its results have been dropped, and after the
// task recorded before it over the same GPUs (OpRecord::effect).
#include <algorithm>
#include <map>

#include "backend/cuda/backend.h"
#include "backend/cuda/emit.h"
#include "base/visit_dtype.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

std::mutex& nccl_mutex() {  // groups, of other communicators too, must reach all GPUs in the same order
  static auto& mutex = *new std::mutex;
  return mutex;
}

// A communicator for each GPU of the list, never destroyed.
const std::vector<ncclComm_t>& communicators(const std::vector<int>& gpus) {
  static auto& known = *new std::map<std::vector<int>, std::vector<ncclComm_t>>;
  auto& all = known[gpus];
  if (all.empty()) {
    std::vector<ncclComm_t> made(gpus.size());
    check(nccl()->ncclCommInitAll(made.data(), static_cast<int>(gpus.size()), gpus.data()), "all_reduce");
    all = std::move(made);
  }
  return all;
}

ncclDataType_t type_of(DType dtype) {
  return visit_dtype<DType::kInt32, DType::kInt64, DType::kFloat32, DType::kFloat64>("all_reduce", dtype, []<class T>() {
    return std::is_same_v<T, std::int32_t>   ? ncclInt32
           : std::is_same_v<T, std::int64_t> ? ncclInt64
           : std::is_same_v<T, float>        ? ncclFloat32
                                             : ncclFloat64;
  });
}

// A scope for the calls of one group. An open group would delay every later call of this thread.
class Group {
 public:
  Group() { check(nccl()->ncclGroupStart(), "all_reduce"); }
  ~Group() {
    if (open_) nccl()->ncclGroupEnd();
  }
  Group(const Group&) = delete;
  void end() {
    open_ = false;
    check(nccl()->ncclGroupEnd(), "all_reduce");
  }

 private:
  bool open_ = true;
};

}  // namespace

// The sums arrive on the GPUs' copy streams, after the operands' producers and the last use of the results' memory.
void Backend::all_reduce(Task& task) {
  const std::size_t count = task.inputs.size() - 1;  // without the token
  const ArrayRef& array = task.outputs[0].array;
  if (array.nbytes() == 0) return;
  const auto backend_of = [&](std::size_t i) -> Backend& {
    return static_cast<Backend&>(*task.inputs[i].storage->device->backend);
  };
  std::vector<int> gpus;
  for (std::size_t i = 0; i < count; ++i) gpus.push_back(backend_of(i).index_);
  std::lock_guard in_order(nccl_mutex());
  const auto& all = communicators(gpus);
  for (std::size_t i = 0; i < count; ++i) {
    Backend& b = backend_of(i);
    const Use its(b);
    Lock lock(b.mutex_);
    const Storage &in = *task.inputs[i].storage, &out = *task.outputs[i].storage;
    b.wait_for_ticket(lock, b.in_, std::max(in.ticket, out.ticket));
    if (const auto failed = b.failure_of(in)) raise(*failed);
  }
  Group group;
  for (std::size_t i = 0; i < count; ++i)
    check(nccl()->ncclAllReduce(task.inputs[i].array.data, task.outputs[i].array.data,
                                static_cast<std::size_t>(array.shape.size()), type_of(array.dtype), ncclSum, all[i],
                                reinterpret_cast<cudaStream_t>(backend_of(i).in_)),
          "all_reduce");
  group.end();
  for (std::size_t i = 0; i < count; ++i) {
    Backend& b = backend_of(i);
    const Use its(b);
    Lock lock(b.mutex_);
    const CUevent event = b.record(b.in_);
    Storage& out = *task.outputs[i].storage;
    out.ticket = 0;
    out.arrival = ++b.arrival_;
    b.arriving_.push_back({out.arrival, event, nullptr, 0, task.inputs[i].storage});
    b.forget_finished(lock);
  }
}

}  // namespace owl::cuda
