// The walk back over a tape's notes, which records the gradients.
#pragma once

#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "autograd/noted.h"
#include "autograd/request.h"
#include "ops/add_views.h"

namespace owl {

struct HashOfValue {
  std::size_t operator()(const ValueId& id) const { return std::hash<const void*>()(id.owner) + id.result; }
};

// What has flowed back to a value so far. Through views, only parts of it are reached: they are added into one array of
// zeros, in this order, each in its place. They are as large together as the value at most, before that is done.
struct Flow {
  Term whole;
  NArray sum;  // of parts
  std::vector<ViewPart> parts;
  std::int64_t part_elements = 0;
};

// What a checkpoint gives the rule of one note.
struct Replayed {
  std::vector<NArray> operands, results;  // empty arrays: not read, or saved
};

class Backward {
 public:
  // Checks everything; records nothing.
  Backward(std::vector<Ref<const Noted>> notes, const GradientRequest& request);
  // The gradients of the sources. A note is let go when it has been passed.
  std::vector<NArray> run();

  // Adds to what flows back to a value that an operation read: a gradient of the slot's shape and type, on its device.
  void deposit(const ShapedSlot& to, const Term& gradient);

 private:
  using Sources = std::vector<std::size_t>;
  void check_arrays() const;
  void find_dependents();
  void find_needed();
  void check_dependence() const;
  NArray flowing_into(const Noted& noted) const;
  void replay(std::size_t latest);
  void run_rule(const Noted& noted, const std::vector<bool>& wants);
  NArray gradient_of(std::size_t source);
  bool depends(const NotedOperand& x) const;
  ShapedSlot source(std::size_t i) const { return {sources_[i], request_.sources[i].shape()}; }

  std::vector<Ref<const Noted>> notes_;
  const GradientRequest& request_;
  Slot y_;
  std::vector<Slot> sources_;
  // Of each note, which operands depend on a source, and whether y depends on it.
  std::vector<std::vector<bool>> wants_;
  std::vector<bool> needed_;
  // A source that is a value has all that flows back to the value, through every view. One that is a view has what was
  // computed from this very view and from views that were made of it.
  std::unordered_set<ValueId, HashOfValue> value_sources_, dependents_;
  std::unordered_map<const Mark*, Sources> view_sources_;
  std::vector<bool> used_;                            // by source: y depends on it

  std::unordered_map<ValueId, Flow, HashOfValue> flows_;
  std::unordered_map<ValueId, Term, HashOfValue> finished_;  // of sources that the tape's operations made
  std::unordered_map<const Noted*, Replayed> replayed_;      // and not read yet
  struct ViewFlow {
    Term same;   // through the source's own place
    Flow other;  // through views of it
  };
  std::vector<ViewFlow> view_flows_;  // by source
};

}  // namespace owl
