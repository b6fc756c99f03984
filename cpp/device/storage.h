// One block of device memory that holds, or will hold, a value.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/failure.h"
#include "base/module_api.h"
#include "base/ref.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

class Allocator;
class Device;
struct Task;

// Shared by a node, its views and the tasks around it. `data` is null until the producing task starts.
class Storage {
 public:
  enum class State : std::uint8_t { kPending, kReady, kFailed };

  // Memory for such a value, not allocated yet. `op` and `source`: which operation makes it, and where it was recorded.
  static Ref<Storage> create(Device& device, const Shape& shape, DType dtype, const char* op, const Source& source);

  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
  }
  int refs() const { return refs_.load(std::memory_order_acquire); }
  bool ready() const { return state.load(std::memory_order_acquire) == State::kReady; }
  bool failed() const { return state.load(std::memory_order_acquire) == State::kFailed; }
  // Ends the value. Until it goes report_earliest_failure() knows it.
  void fail(std::shared_ptr<const Failure> why);

  Device* const device;
  const std::size_t bytes;
  void* data = nullptr;
  std::atomic<State> state{State::kPending};
  Task* producer = nullptr;                // while pending; set by the planner, then guarded by the scheduler's mutex
  bool token = false;                      // of an effect (OpRecord::effect): it has no elements
  bool waited = false;                     // a thread blocks on it; guarded by the scheduler's mutex
  std::shared_ptr<const Failure> failure;  // set before state becomes kFailed
  // Memory that another library owns (DLPack, a buffer lent by the host): called instead of giving `data` back.
  void (*foreign_release)(void*) = nullptr;
  void* foreign = nullptr;
  // Numbers of its device, where that is asynchronous: what must have run before the host or another device touches the
  // memory, and the copy from elsewhere that the device itself must wait for (backend/cuda/backend.h).
  std::uint64_t ticket = 0, arrival = 0;
  std::atomic<std::uint64_t> order{0};  // the number of the task that made it there; 0: none of the device's own
  const char* op;  // for messages about memory
  const Source source;
  const Shape shape;
  const DType dtype;

  // While one of these exists, memory of others that this thread lets go of is not given back yet: that may call
  // foreign code, which must not happen under the engine's locks.
  struct DeferForeign {
    DeferForeign();
    ~DeferForeign();
  };

 private:
  friend class Allocator;
  // Under the allocator's mutex:
  Allocator* allocator_ = nullptr;               // that `data` comes from
  Storage *older_ = nullptr, *newer_ = nullptr;  // its list of blocks in use
  struct Packed {
    std::int64_t layout;
    void* data = nullptr;  // null: asked for once
    std::size_t bytes = 0;
    int users = 0;
    bool ready = false;
  };
  std::vector<Packed> packed_;  // the value in kernels' own layouts (Allocator::pack)
  Storage(Device& device, const Shape& shape, DType dtype, const char* op, const Source& source);
  OWL_MODULE_API void destroy();
  void give_back();  // of `data`, to its allocator (allocator.cpp)
  std::atomic<int> refs_{1};
};

// Of the failures of all values that still exist, and `candidate`, the earliest recorded that was not reported yet; it
// counts as reported from then on. Null where there is none. That of a token counts unless a wait has raised it: it stands
// for an effect whose results are gone.
std::shared_ptr<const Failure> report_earliest_failure(std::shared_ptr<const Failure> candidate);

}  // namespace owl
