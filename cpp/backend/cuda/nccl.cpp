// The sum of arrays on several GPUs, on all of them, by NCCL. Every GPU has a task for its own result; the first task
// that runs calls NCCL for all (a call for each GPU, in one group, from one thread), into memory from which the other
// tasks take their results. So no GPU waits for a task whose results have been dropped.
#include <map>

#include "backend/cuda/backend.h"
#include "backend/cuda/emit.h"
#include "base/visit_dtype.h"
#include "ops/all_reduce.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

std::mutex& nccl_mutex() {  // groups must reach all GPUs in the same order
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
  return visit_dtype<DType::kInt32, DType::kFloat32, DType::kFloat64>("all_reduce", dtype, []<class T>() {
    return std::is_same_v<T, std::int32_t> ? ncclInt32 : std::is_same_v<T, float> ? ncclFloat32 : ncclFloat64;
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

// The results of one NCCL call: the sum on each GPU, valid after its arrival.
class Backend::Reduced : public AllReduceRound::Results {
 public:
  struct Sum {
    Device* device;
    void* data;
    std::uint64_t arrival;
  };

  Reduced(const Task& task, std::size_t bytes) : bytes_(bytes) {
    for (const auto& in : task.inputs) {
      Device& device = *in.storage->device;
      void* const data = device.allocator.allocate(bytes);
      if (!data) {
        give_back();
        throw OutOfMemoryError("all_reduce: no memory for " + std::to_string(bytes) + " bytes on device " +
                               std::to_string(device.id));
      }
      sums_.push_back({&device, data, 0});
    }
  }
  ~Reduced() override { give_back(); }

  Sum& operator[](std::size_t i) { return sums_[i]; }
  void give_back(std::size_t i) {
    auto& [device, data, arrival] = sums_[i];
    if (!data) return;
    device->backend->require_arrival(arrival);  // the memory's next use must follow the sum
    device->allocator.free(std::exchange(data, nullptr), bytes_);
  }

 private:
  void give_back() {
    for (std::size_t i = 0; i < sums_.size(); ++i) give_back(i);
  }
  const std::size_t bytes_;
  std::vector<Sum> sums_;
};

void Backend::all_reduce(Task& task) {
  const auto& params = static_cast<const AllReduceParams&>(*task.params);
  Storage& out = *task.outputs[0].storage;
  if (out.bytes == 0) return;
  std::shared_ptr<Reduced> reduced;
  {
    std::lock_guard once(params.round->mutex);
    if (!params.round->results) params.round->results = reduce(task);
    reduced = std::static_pointer_cast<Reduced>(params.round->results);
  }
  const auto& sum = (*reduced)[params.index];
  require_arrival(sum.arrival);
  Command copy;
  copy.op = task.name;
  copy.source = task.source;
  copy.kernel = copy_function(*this);
  copy.name = "owl_copy";
  copy.blocks = blocks_to_copy(out.bytes);
  copy.slots = {reinterpret_cast<std::uintptr_t>(sum.data),
                reinterpret_cast<std::uintptr_t>(task.outputs[0].array.data), out.bytes};
  append({std::move(copy)}, task);
  reduced->give_back(params.index);
}

std::shared_ptr<Backend::Reduced> Backend::reduce(const Task& task) {
  const std::size_t bytes = task.outputs[0].storage->bytes;
  auto reduced = std::make_shared<Reduced>(task, bytes);
  std::vector<Backend*> backends;
  std::vector<int> gpus;
  for (const auto& in : task.inputs) {
    backends.push_back(static_cast<Backend*>(in.storage->device->backend.get()));
    gpus.push_back(backends.back()->index_);
  }
  std::lock_guard in_order(nccl_mutex());
  const auto& all = communicators(gpus);
  for (std::size_t i = 0; i < all.size(); ++i) {  // the copy streams of the GPUs, after the operands' producers
    Backend& b = *backends[i];
    const Use its(b);
    Lock lock(b.mutex_);
    b.wait_for_ticket(lock, b.in_, std::max(task.inputs[i].storage->ticket, b.place()));
    if (const auto failed = b.failure_of(*task.inputs[i].storage)) raise(*failed);
  }
  Group group;
  for (std::size_t i = 0; i < all.size(); ++i)
    check(nccl()->ncclAllReduce(task.inputs[i].array.data, (*reduced)[i].data,
                                bytes / itemsize(task.outputs[0].array.dtype), type_of(task.outputs[0].array.dtype),
                                ncclSum, all[i], reinterpret_cast<cudaStream_t>(backends[i]->in_)),
          "all_reduce");
  group.end();
  for (std::size_t i = 0; i < all.size(); ++i) {
    Backend& b = *backends[i];
    const Use its(b);
    Lock lock(b.mutex_);
    const CUevent event = b.record(b.in_);
    (*reduced)[i].arrival = ++b.arrival_;
    b.arriving_.push_back({(*reduced)[i].arrival, event, nullptr, 0, task.inputs[i].storage});
  }
  return reduced;
}

}  // namespace owl::cuda
