// What a tape keeps of one recorded operation.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "base/recycled.h"
#include "graph/gradient.h"
#include "graph/noting.h"
#include "graph/record.h"

namespace owl {

// Which value: a node's own, or one of its several results.
struct ValueId {
  const Mark* owner = nullptr;
  std::uint16_t result = 0;
  bool operator==(const ValueId&) const = default;
};

// Makes `again`, a value that a checkpoint recorded again, the value `first` to what this thread notes, until it forgets:
// what flows back to the two is added before it goes further back, as without the checkpoint.
void identify(Mark& again, Mark& first);
void forget_identities();
// Of the value that the node has or is a view of.
Mark& owner_mark(Node& node);

// A node as an operation named it: the value, and the view of it.
struct Slot {
  struct View {
    std::int64_t offset;
    Strides strides;
    Shape whole;  // of the value
  };

  void set(Node& node);
  ValueId value() const { return {owner.get(), result}; }
  // Calls f with the marks of the node itself, if it is a view or an alias, and of the views that it was made of.
  template <class F> void for_each_view(F f) const {
    if (own) f(own.get());
    if (made_of)
      for (const auto& mark : *made_of) f(mark.get());
  }

  MarkUse owner;  // of the node whose value it is
  Ref<Mark> own;  // of the node itself, if it is a view or an alias of that
  Device* device = nullptr;
  std::unique_ptr<const View> view;  // null: the whole value in its own shape
  std::shared_ptr<const std::vector<Ref<Mark>>> made_of;  // as Node::made_of
  std::uint16_t result = 0;
  DType dtype = DType::kFloat32;
};

// With its shape, apart because most operands have the shape of the result.
struct ShapedSlot {
  const Slot& slot;
  const Shape& shape;
  bool same_place(const ShapedSlot& other) const;  // of the value's memory, in the same order
  const Shape& whole() const { return slot.view ? slot.view->whole : shape; }
};

// A random array that is drawn again when it is needed.
struct Drawn {
  const OpRecord* op;
  std::shared_ptr<const Params> params;
};

struct NotedOperand : Slot {
  bool has_path = false;  // a float array and no constant: a gradient may flow back to it
  bool is_array = false;
  bool is_replayed = false;  // the note's checkpoint made it
  double number = 0;      // what it is if no array
  NArray saved;
  std::unique_ptr<const Drawn> drawn;  // in place of `saved`
  std::unique_ptr<const Shape> other_shape;  // null: the first result's
};

struct NotedResult {
  NArray saved;
  ValueId value;
  ResultType type;
};

class Checkpoint;

// Immutable once it is on a tape, and counted: of several tapes. Small, because it is what an open tape costs.
class Noted : public Recycled<Noted, 1024> {
 public:
  Noted() = default;
  void retain() const { refs_.fetch_add(1, std::memory_order_relaxed); }
  void release() const {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  Noted(const Noted&) = delete;
  Noted& operator=(const Noted&) = delete;

  // Whether no array and no noted operation can ask for its results any more.
  bool is_dead() const;

  void set_counts(std::size_t operands, std::size_t results);
  std::span<NotedOperand> operands() { return {many_operands_ ? many_operands_.get() : few_operands_, operand_count_}; }
  std::span<const NotedOperand> operands() const { return const_cast<Noted*>(this)->operands(); }
  std::span<NotedResult> results() { return {many_results_ ? many_results_.get() : &result_, result_count_}; }
  std::span<const NotedResult> results() const { return const_cast<Noted*>(this)->results(); }
  ShapedSlot operand(std::size_t i) const {
    const NotedOperand& x = operands()[i];
    return {x, x.other_shape ? *x.other_shape : results()[0].type.shape};
  }

 private:
  mutable std::atomic<int> refs_{1};
  std::uint32_t operand_count_ = 0, result_count_ = 1;

 public:
  Ref<Mark> made;  // of the node that has the results

 private:
  NotedResult result_;

 public:
  const OpRecord* op = nullptr;
  std::shared_ptr<const Params> params;
  Source source;
  Device* device = nullptr;
  DType compute = DType::kFloat32;
  std::uint32_t number = 0;                      // of the operation in
  std::shared_ptr<const Checkpoint> checkpoint;  // which made some of what the rule reads, in place of `saved`

  // What the rule reads for the gradients of these operands.
  Saves saves_for(const std::vector<bool>& wants) const;

 private:
  std::unique_ptr<NotedOperand[]> many_operands_;
  std::unique_ptr<NotedResult[]> many_results_;
  NotedOperand few_operands_[2];
};

}  // namespace owl
