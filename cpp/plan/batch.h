// What the planner's passes share: a batch of recorded operations, the groups that they form, and questions about both.
#pragma once

#include <bit>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/recycled.h"
#include "device/device.h"
#include "graph/node.h"
#include "graph/op.h"
#include "owl/error.h"
#include "plan/traits.h"

namespace owl::planner {

inline constexpr std::size_t kMaxBatch = 256;  // operations per batch: groups are numbered in a bit set
inline constexpr int kMaxInstructions = 64;    // of one program: its registers stay in the first-level cache
inline constexpr int kMaxInputs = 24;

using GroupId = std::size_t;  // position in Batch::groups
inline constexpr GroupId kNoGroup = ~GroupId{0};
using GroupSet = std::bitset<kMaxBatch>;

// What the device's kernel of the node's operation can do.
inline const KernelTraits& traits_of(const Node& node) { return node.device->backend->traits(*node.op); }

// What elementwise operations ask of the program that they become.
struct Load {
  int instructions = 0, inputs = 0;  // upper bounds, casts included
  std::int64_t pending_bytes = 0;    // of inputs that only this program reads and that are computed for it
  bool gathers = false;              // an operand is a strided view

  Load& operator+=(const Load& more) {
    instructions += more.instructions;
    inputs += more.inputs;
    pending_bytes += more.pending_bytes;
    gathers |= more.gathers;
    return *this;
  }
};

// Elementwise operations that become one program.
struct Part {
  std::vector<Node*> members;  // in the order of recording
  Load load;
};

// Operations that become one task: a program, or a kernel with perhaps a program before it, after it or both.
struct Group {
  Part before;  // without a kernel: the whole group
  Node* kernel = nullptr;
  double kernel_ns = 0;  // its cost
  Part after;
  bool channels_last = false;  // its results: images in that order
  GroupSet needs;              // groups of this batch that must run before, directly or not
  bool merged_away = false;    // merged into another group

  Part& part(TaskPart p) { return p == TaskPart::kAfter ? after : before; }
  const Part& part(TaskPart p) const { return p == TaskPart::kAfter ? after : before; }
};

// While it lives, Node::plan of its nodes, and of those that they read, holds what the passes note there.
struct Batch {
  // Notes which values are held now, for all passes. `may_join`: tasks may wait for one
  // another's operands.
  explicit Batch(std::span<Node* const> recorded, bool may_join = true);
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // The group that computes the operand's memory; kNoGroup: it comes from before this batch.
  GroupId producer(const Node* operand) const {
    const auto index = (operand->base ? operand->base : operand)->plan.index;
    return index < 0 ? kNoGroup : group_of[static_cast<std::size_t>(index)];
  }

  // Whether the group computes the value. A view of it is none of its members: it is read from memory.
  bool is_member(const Node* node, const Group& group) const {
    return node->plan.index >= 0 && !node->base && &groups[producer(node)] == &group;
  }

  bool is_channels_last(const Node& node) const {
    return node.plan.index >= 0 && !node.base && groups[producer(&node)].channels_last;
  }

  const std::span<Node* const> nodes;  // in the order of recording
  const bool may_join;
  RecycledVector<Node*> others;        // operands that are none of them, views included, in the order of first reads
  std::vector<GroupId> group_of;       // by position in `nodes`
  std::vector<Group> groups;
};

// A pass violated an invariant.
[[noreturn]] inline void broken(const std::string& what) { throw Error("internal error: planner: " + what); }

inline bool is_elementwise(const Node& node) { return node.op->cls == OpRecord::Class::kElementwise; }

// Whether the value is read from outside its group, so that it must be in memory.
inline bool is_wanted(const Node& node) { return node.plan.held || node.plan.reads > node.plan.uses; }

// The type to which an elementwise operation converts operand i.
inline DType operand_type(const Node& node, std::size_t i) {
  return node.op->rule == TypeRule::kSelect && i == 0 ? DType::kBool : node.compute;
}

// Whether the result of an elementwise operation is converted to a narrow type, in a register if it is fused: what reads
// it there has the bits that it would have from memory.
inline bool rounds(const Node& node) { return node.op->rule != TypeRule::kCast && is_narrow(node.dtype); }

// How many conversions its operands and its result need.
inline int casts(const Node& node) {
  int n = rounds(node);
  const auto inputs = node.inputs();
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i] && node.op->rule != TypeRule::kCast) n += inputs[i]->dtype != operand_type(node, i);
  return n;
}

// The operation's position in its batch.
inline std::uint16_t position_of(const Node& node) { return static_cast<std::uint16_t>(node.plan.index); }

// Whether two number operands have the same bits.
inline bool is_same_number(const Scalar& a, const Scalar& b) {
  return a.integer == b.integer && std::bit_cast<std::uint64_t>(a.value) == std::bit_cast<std::uint64_t>(b.value);
}

inline std::vector<Shape> shapes_of_inputs(const Node& node) {
  std::vector<Shape> shapes;
  shapes.reserve(node.inputs().size());
  for (const Node* in : node.inputs()) shapes.push_back(in->shape);
  return shapes;
}

}  // namespace owl::planner
