// What a tape keeps of one recorded operation.
#pragma once

#include <memory>
#include <span>
#include <vector>

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

// A node as an operation named it: the value, and the view of it.
struct Slot {
  struct View {
    std::int64_t offset;
    Strides strides;
    Shape whole;  // of the value
  };

  Slot() = default;
  explicit Slot(Node& node);
  ValueId value() const { return {owner.get(), result}; }
  bool same_place(const Slot& other) const;  // of the value's memory, in the same order
  const Shape& whole_shape() const { return view ? view->whole : shape; }

  Ref<Mark> owner, own;  // of the node whose value it is, of the node itself: the same unless it is a view or an alias
  std::uint16_t result = 0;
  DType dtype = DType::kFloat32;
  Device* device = nullptr;
  Shape shape;
  std::unique_ptr<const View> view;  // null: the whole value in its own shape
};

struct NotedOperand : Slot {
  using Slot::Slot;
  bool has_path = false;  // a float array and no constant: a gradient may flow back to it
  bool is_array = false;
  Scalar number;          // what it is if no array
  NArray saved;
};

struct NotedResult {
  ResultType type;
  ValueId value;
  NArray saved;
};

// Immutable once it is on a tape. With no operation: a view that was made of a view, which says what is derived from what.
class Noted {
 public:
  Noted() = default;
  ~Noted();
  Noted(const Noted&) = delete;
  Noted& operator=(const Noted&) = delete;

  // Counts it as a use of its operands.
  void use_operands();
  // Whether no array and no noted operation can ask for its results any more.
  bool is_dead() const;
  std::span<NotedOperand> operands() { return many_.empty() ? std::span(few_, operand_count_) : std::span(many_); }
  std::span<const NotedOperand> operands() const { return const_cast<Noted*>(this)->operands(); }
  void set_operand_count(std::size_t n) {
    operand_count_ = n;
    if (n > std::size(few_)) many_ = std::vector<NotedOperand>(n);
  }
  std::span<NotedResult> results() { return more_results.empty() ? std::span(&result, 1) : std::span(more_results); }
  std::span<const NotedResult> results() const { return const_cast<Noted*>(this)->results(); }

  const OpRecord* op = nullptr;
  std::shared_ptr<const Params> params;
  Source source;
  Device* device = nullptr;
  DType compute = DType::kFloat32;
  Ref<Mark> made;                        // of the node that has the results; of a view: its own
  NotedResult result;
  std::vector<NotedResult> more_results; // in place of `result`, if there are several

 private:
  std::size_t operand_count_ = 0;
  NotedOperand few_[2];
  std::vector<NotedOperand> many_;
  bool uses_ = false;
};

}  // namespace owl
