// The graph: nodes recorded by the script, and the storages that hold their values.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/module_api.h"
#include "base/ref.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

class Device;
class Node;
struct OpRecord;
struct Task;

// Where the script recorded an operation. Opaque to the engine: a front end sets `current_source` before it records
// and knows how to turn one into "file:line" (see RuntimeHooks in runtime/engine.h).
struct Source {
  const void* code = nullptr;
  std::int32_t offset = -1;
};
OWL_MODULE_API extern constinit thread_local Source current_source;

// Operations recorded while it is set are watched for NaN and infinity (see owl/inspect.h).
extern std::atomic<bool> nan_tracing;

// "file:line" where the front end can tell, else "".
std::string place_of(const Source& source);

// What went wrong while a task ran. It travels to everything computed from the failed value.
struct Failure {
  enum class Kind { kOther, kOutOfMemory, kDevice, kNaN, kShape, kDType };
  Kind kind = Kind::kOther;
  std::string message;  // without the place, which front ends add
  const char* op = "";
  Source source;
  std::uint64_t sequence = 0;  // of the failing node: wait_for_all raises the earliest
  std::shared_ptr<const void> cause;  // the front end's own exception, where that was the reason
  mutable std::atomic<bool> reported = false;  // wait_for_all has raised it
};

// One block of device memory that holds, or will hold, a value. Shared by a node, its views and the tasks around it.
// `data` is null until the producing task starts.
class Storage {
 public:
  enum class State : std::uint8_t { kPending, kReady, kFailed };

  // Memory for the node's value, not allocated yet.
  static Ref<Storage> create(const Node& node);

  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
  }
  int refs() const { return refs_.load(std::memory_order_acquire); }
  bool ready() const { return state.load(std::memory_order_acquire) == State::kReady; }

  Device* const device;
  const std::size_t bytes;
  void* data = nullptr;
  std::atomic<State> state{State::kPending};
  Task* producer = nullptr;                // while pending; set by the planner, then guarded by the scheduler's mutex
  bool waited = false;                     // a thread blocks on it; guarded by the scheduler's mutex
  std::shared_ptr<const Failure> failure;  // set before state becomes kFailed
  // Memory that somebody else owns (DLPack, a buffer lent by the host): called instead of giving `data` back.
  void (*foreign_release)(void*) = nullptr;
  void* foreign = nullptr;
  // Numbers of its device, where that runs behind its worker: what must have run before anybody else touches the memory,
  // and the copy from elsewhere that the device itself must wait for (backend/cuda/backend.h).
  std::uint64_t ticket = 0, arrival = 0;
  std::atomic<std::uint64_t> order{0};  // the number of the task that made it there; 0: none of the device's own
  // Who made it, for messages about memory.
  const char* op = "data";
  Source source;
  Shape shape;
  DType dtype = DType::kFloat32;

  // While one of these exists, memory of others that this thread lets go of is not given back yet: that may call
  // foreign code, which must not happen under the engine's locks.
  struct DeferForeign {
    DeferForeign();
    ~DeferForeign();
  };

 private:
  friend class Allocator;
  // Under the allocator's mutex:
  Storage *older_ = nullptr, *newer_ = nullptr;  // the device's list of blocks in use
  struct Packed {
    std::int64_t layout;
    void* data = nullptr;  // null: asked for once
    std::size_t bytes = 0;
    int users = 0;
    bool ready = false;
  };
  std::vector<Packed> packed_;  // the value in kernels' own layouts (Allocator::pack)
  Storage(Device* device_, std::size_t bytes_) : device(device_), bytes(bytes_) {}
  OWL_MODULE_API void destroy();
  std::atomic<int> refs_{1};
};

// The non-array arguments of an operation; each family derives its own (immutable once recorded).
struct Params {
  virtual ~Params() = default;
  virtual bool finite() const { return true; }  // no NaN or infinity is asked for
};

// Python-like numbers as operands: they never raise a float type.
struct Scalar {
  enum class Kind : std::uint8_t { kNone, kBool, kInt, kFloat };
  Kind kind = Kind::kNone;
  double value = 0;
};

inline constexpr int kInlineInputs = 3;

// The parts of a task, in the order in which they run over a range of elements.
enum class TaskPart : std::uint8_t { kBefore, kKernel, kAfter };

// One recorded operation (or data, or a view of another node). Nodes point only to their inputs.
//
// Two counts: `refs` counts everything that keeps the node (handles, consumers not yet planned, the window),
// `handles` only those through which the script can still ask for the value (NArray handles, and views).
// A node with no handle and no consumer is dead; a node with no handle whose consumers are all fused with it is an
// intermediate that never reaches memory.
class Node {
 public:
  void retain() { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy(this);
  }
  void retain_handle() { retain(); handles_.fetch_add(1, std::memory_order_relaxed); }
  void release_handle() { handles_.fetch_sub(1, std::memory_order_acq_rel); release(); }
  int refs() const { return refs_.load(std::memory_order_acquire); }
  int handles() const { return handles_.load(std::memory_order_acquire); }

  static Node* create();  // refs 1, handles 0

  const OpRecord* op = nullptr;  // null for data and views
  Device* device = nullptr;
  Shape shape;
  DType dtype = DType::kFloat32;
  DType compute = DType::kFloat32;     // elementwise: the type the operands are brought to
  bool traced = nan_tracing.load(std::memory_order_relaxed);
  std::uint32_t input_count = 0;
  Scalar scalars[kInlineInputs];       // elementwise: the operand at i where inputs()[i] is null
  std::unique_ptr<const Params> params;
  Source source;
  std::uint64_t sequence = 0;          // order of recording

  // Operands; released once the node is planned. A null entry is the scalar of the same index.
  std::span<Node* const> inputs() const { return {more_inputs_ ? more_inputs_.get() : few_inputs_, input_count}; }
  void set_inputs(std::span<Node* const> nodes);  // takes a reference on each
  void clear_inputs();

  // The value. For a view: of `base`. Set by the planner (or at once for data), then never changed.
  bool planned() const { return planned_.load(std::memory_order_acquire); }
  void set_storage(Ref<Storage> s) { storage_ = std::move(s); planned_.store(true, std::memory_order_release); }
  OWL_MODULE_API Storage* storage() const;  // null while not planned

  // Views: a window onto base's memory. Dense (strides null) or strided, both with an offset in elements.
  Node* base = nullptr;                      // held as a handle: whoever can read the view can read the base
  std::int64_t offset = 0;
  std::unique_ptr<const Strides> strides;    // null: dense column-major

  struct PeerCopy {
    Device* device;
    Ref<Node> node;
    std::uint64_t used;  // when it was last asked for: numbers that grow
  };
  std::vector<PeerCopy> peer_copies;  // the value on other devices; guarded by the engine (Engine::peer_copy_of)
  std::atomic<bool> has_been_copied{false};  // peer_copies has held one: from then on it is looked at under the lock

  struct {                       // the planner's notes while this node's batch is planned
    std::int32_t index = -1;     // in the batch; -1: not in it
    std::uint16_t value = 0;     // number in the fused program
    TaskPart part{};             // which part of its group's task computes it
    std::int32_t uses = 0;       // by operations of the same group
    std::int32_t outside_uses = 0;  // by those of other groups of the batch
  } plan;

 private:
  static void destroy(Node* node);
  Node() = default;
  ~Node();
  std::atomic<int> refs_{1};
  std::atomic<int> handles_{0};
  std::atomic<bool> planned_{false};
  Ref<Storage> storage_;
  Node* few_inputs_[kInlineInputs] = {};
  std::unique_ptr<Node*[]> more_inputs_;
  Node* next_dead_ = nullptr;  // destroy() drains a list instead of recursing: chains may be a million long
};

}  // namespace owl
