// The graph: the nodes that the script records.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/module_api.h"
#include "base/recycled.h"
#include "base/ref.h"
#include "base/source.h"
#include "device/storage.h"
#include "graph/noting.h"
#include "graph/params.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

class Node;
struct OpRecord;

// Operations recorded while it is set are checked for NaN and infinity (see owl/inspect.h).
extern std::atomic<bool> nan_tracing;

// Python-like numbers as operands: they never promote a float type.
struct Scalar {
  enum class Kind : std::uint8_t { kNone, kBool, kInt, kFloat };
  Kind kind = Kind::kNone;
  double value = 0;
  std::int64_t integer = 0;  // of a bool or an int that int64 can hold: exact
};

inline constexpr int kInlineInputs = 3;

// The parts of a task, in the order in which they run over a range of elements.
enum class TaskPart : std::uint8_t { kBefore, kKernel, kAfter };

// One recorded operation (or data, or a view of another node). Nodes point only to their inputs.
//
// Two counts: `refs` counts all references (handles, readers not yet planned, the window), `handles` only the script's
// (NArray handles, and views). A node without handles and readers is dead; a node without handles whose readers are all
// fused with it is an intermediate that never reaches memory.
class Node : public Recycled<Node> {
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
  DType compute = DType::kFloat32;     // elementwise: the type to which operands are converted
  bool traced = nan_tracing.load(std::memory_order_relaxed);
  bool constant = false;               // to every tape: stop_gradient, and views of it
  std::uint32_t input_count = 0;
  Scalar scalars[kInlineInputs];       // elementwise: operand i if inputs()[i] is null
  std::shared_ptr<const Params> params;
  Source source;
  std::uint64_t sequence = 0;          // order of recording

  // Operands; released when the node is planned. A null entry stands for the scalar of the same index.
  std::span<Node* const> inputs() const { return {more_inputs_ ? more_inputs_.get() : few_inputs_, input_count}; }
  void set_inputs(std::span<Node* const> nodes);  // takes a reference on each
  void set_last_input(Node& node);  // which was null
  void clear_inputs();

  // The value; a view's is that of `base`. Set by the planner (for data at once), then never changed.
  bool planned() const { return planned_.load(std::memory_order_acquire); }
  void set_storage(Ref<Storage> s) { storage_ = std::move(s); planned_.store(true, std::memory_order_release); }
  OWL_MODULE_API Storage* storage() const;  // null until planned

  // An operation with several results: its node has the operands and the task, but no value. Each result is a node of
  // its own, whose base is this node, so that each has its own handles, and a result without handle or reader is not
  // computed.
  struct Result {
    std::atomic<int> nodes{0};  // that refer to it: its own, and views
    bool wanted = false;        // whether there were any when the planner began; guarded by its mutex
    Shape shape;
    Ref<Storage> storage;       // set by the planner, if such nodes existed
  };
  std::unique_ptr<Result[]> results;  // null: one result, the node itself
  std::uint16_t result_count = 1;
  std::uint16_t result = 0;           // index of the result, if the base has several
  void make_results(std::size_t count);
  // Makes this node a result, or a view, of `of`.
  void set_base(Node& of, std::uint16_t which);

  // Views: a window onto base's memory. Dense (strides null) or strided, both with an offset in elements.
  Node* base = nullptr;                      // counted as a handle: a script with the view can read the base's value
  std::int64_t offset = 0;
  std::unique_ptr<const Strides> strides;    // null: dense column-major
  bool alias = false;                        // the whole value of `base` under another identity: operations read `base`
  const Shape& whole_shape() const {         // of the value that this is, or is a view of
    return !base ? shape : base->results ? base->results[result].shape : base->shape;
  }
  Mark& mark();                              // made when it is first asked for
  // Of a view that was made of a view: the marks of those between it and the value, if they live.
  std::shared_ptr<const std::vector<Ref<Mark>>> made_of;

  struct PeerCopy {
    Device* device;
    Ref<Node> node;
    std::uint64_t used;  // time of the last use, as an increasing number
  };
  std::vector<PeerCopy> peer_copies;  // copies on other devices; guarded by the engine (Sink::peer_copy_of)
  std::atomic<bool> has_been_copied{false};  // peer_copies was not always empty: read it under the lock

  struct {                       // the planner's data while it plans a batch with this node, or one that reads it
    std::int32_t index = -1;     // in the batch; -1: not in it
    std::int32_t other = -1;     // among the operands that are not in the batch; -1: none of them
    bool has_handle = false;     // when the planning began: other threads may drop handles meanwhile
    bool held = false;           // likewise: has a handle, or a reader outside the batch
    TaskPart part{};             // the part of its group's task that computes it
    std::uint16_t value = 0;     // number in the fused program
    std::int32_t reads = 0;      // how often the batch's operations read it
    std::int32_t uses = 0;       // of these, in the same group
  } plan;

 private:
  static void destroy(Node* node);
  void leave_mark();
  void leave_base();
  Node() = default;
  ~Node();
  std::atomic<int> refs_{1};
  std::atomic<int> handles_{0};
  std::atomic<bool> planned_{false};
  Ref<Storage> storage_;
  std::atomic<Mark*> mark_{nullptr};
  Node* few_inputs_[kInlineInputs] = {};
  std::unique_ptr<Node*[]> more_inputs_;
  Node* next_dead_ = nullptr;  // destroy() drains a list instead of recursing: chains may be a million long
};

}  // namespace owl
