// One block of device memory for a value.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/failure.h"
#include "base/module_api.h"
#include "base/recycled.h"
#include "base/ref.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

class Allocator;
class Device;
struct Task;

// Shared by a node, its views and the tasks around it. `data` is null until the producing task starts.
class Storage : public Recycled<Storage> {
 public:
  enum class State : std::uint8_t { kPending, kReady, kFailed };

  // Memory for such a value, not allocated yet. `op` and `source`: the operation that computes it, and where it was
  // recorded.
  static Ref<Storage> create(Device& device, const Shape& shape, DType dtype, const char* op, const Source& source);

  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
  }
  int refs() const { return refs_.load(std::memory_order_acquire); }
  bool ready() const { return state.load(std::memory_order_acquire) == State::kReady; }
  bool failed() const { return state.load(std::memory_order_acquire) == State::kFailed; }
  // Marks the value as failed. report_earliest_failure() considers it while it exists.
  void fail(std::shared_ptr<const Failure> why);

  Device* const device;
  const std::size_t bytes;
  void* data = nullptr;
  std::atomic<State> state{State::kPending};
  Task* producer = nullptr;                // while pending; set by the planner, then guarded by the scheduler's mutex
  Task* held_by = nullptr;                 // the task, if the planner holds it back; guarded by the planner's mutex
  bool token = false;                      // of an effect (OpRecord::effect): it has no elements
  bool waited = false;                     // a thread waits for it; guarded by the scheduler's mutex
  std::shared_ptr<const Failure> failure;  // set before state becomes kFailed
  // For memory that another library owns (DLPack, a host buffer): called instead of freeing `data`.
  void (*foreign_release)(void*) = nullptr;
  void* foreign = nullptr;
  // Positions of an asynchronous device: `ticket`, the work that must have run before the host or another device uses
  // the memory; `arrival`, the copy into it that the device itself must wait for (backend/cuda/backend.h).
  std::uint64_t ticket = 0, arrival = 0;
  std::atomic<std::uint64_t> order{0};  // the number of the asynchronous device's task that computes it; 0: none
  const char* op;  // for messages about memory
  const Source source;
  const Shape shape;
  const DType dtype;

  // While one exists, this thread defers the release of imported memory, because it may call foreign code, which must
  // not run under the engine's locks.
  struct DeferForeign {
    DeferForeign();
    ~DeferForeign();
  };

 private:
  friend class Allocator;
  // Guarded by the allocator's mutex:
  Allocator* allocator_ = nullptr;               // `data` is its memory
  Storage *older_ = nullptr, *newer_ = nullptr;  // neighbours in its list of values in memory
  struct Packed {
    std::int64_t layout;
    void* data = nullptr;  // null: requested once
    std::size_t bytes = 0;
    int users = 0;
    bool ready = false;
  };
  std::vector<Packed> packed_;  // copies in kernel-specific layouts (Allocator::pack)
  Storage(Device& device, const Shape& shape, DType dtype, const char* op, const Source& source);
  OWL_MODULE_API void destroy();
  void give_back();  // frees `data` to its allocator (allocator.cpp)
  std::atomic<int> refs_{1};
};

// The earliest recorded failure, not yet reported, among `candidate` and those of all live values; marks it as
// reported. Null if there is none. A token's counts until a wait has
// raised it: it stands for an effect whose results may be gone.
std::shared_ptr<const Failure> report_earliest_failure(std::shared_ptr<const Failure> candidate);

}  // namespace owl
