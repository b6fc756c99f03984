// Plans a batch in three steps: group (which operations run together), order (groups after what they read), emit (a
// task each). A group is one kernel, or elementwise operations over one shape that become one fused program.
#include "plan/planner.h"

#include <algorithm>
#include <bit>
#include <bitset>

#include "backend/cpu/tile.h"
#include "base/env.h"
#include "graph/record.h"
#include "runtime/counters.h"
#include "runtime/device.h"

namespace owl {

namespace {

constexpr std::size_t kMaxBatch = 256;      // operations looked at together: groups are numbered in a bit set
constexpr int kMaxInstructions = 64;        // of one program: its registers stay in the first-level cache
constexpr int kMaxInputs = 24;
// Of inputs that only the program reads and that are computed for it: all of them are in memory at once.
constexpr std::int64_t kMaxPendingBytes = 64 << 20;
constexpr double kKernelOverheadNs = 200;
constexpr double kOperationsPerNs = 30;     // what a kernel does on one thread, roughly

using GroupSet = std::bitset<kMaxBatch>;

struct Group {
  std::vector<Node*> members;  // in the order of recording
  GroupSet needs;              // groups of this batch that must run before, directly or not
  bool elementwise = false;
  int instructions = 0, inputs = 0;  // upper bounds, casts included
  std::int64_t pending_bytes = 0;    // of inputs as kMaxPendingBytes has them
  bool merged_away = false;
};

const Node* owner_of(const Node* node) { return node->base ? node->base : node; }

class Batch {
 public:
  // With `dry`, nodes stay as they are and storages go there.
  explicit Batch(std::span<Node* const> nodes, DryPlan* dry = nullptr) : nodes_(nodes), dry_(dry) {
    for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i]->plan = {static_cast<std::int32_t>(i), 0, 0};
    group_of_.resize(nodes.size());
  }

  void run(std::vector<std::unique_ptr<Task>>& tasks) {
    tasks_ = &tasks;
    for (Node* node : nodes_) assign(node);
    emit_in_order();
    for (Node* node : nodes_) {
      node->plan.index = -1;
      if (dry_) continue;
      node->clear_inputs();
      node->release();
    }
  }

 private:
  // --- grouping

  // The group of this batch that computes the operand's memory; -1: it comes from before.
  int producer(const Node* operand) const {
    const auto index = owner_of(operand)->plan.index;
    return index < 0 ? -1 : group_of_[static_cast<std::size_t>(index)];
  }

  void assign(Node* node) {
    GroupSet direct, viewed;  // groups it reads; those of which it reads a view, and so must wait for
    for (const Node* in : node->inputs()) {
      const int g = in ? producer(in) : -1;
      if (g < 0) continue;
      direct.set(static_cast<std::size_t>(g));
      if (in->base) viewed.set(static_cast<std::size_t>(g));
    }

    int home = -1;
    if (node->op->cls == OpRecord::Class::kElementwise) {
      for (const Node* in : node->inputs()) {
        const int g = in ? producer(in) : -1;
        if (g < 0 || viewed[static_cast<std::size_t>(g)] || !can_join(g, *node, direct)) continue;
        if (home < 0) home = g;
        else if (g != home && can_merge(home, g)) { merge(home, g); direct.reset(static_cast<std::size_t>(g)); }
      }
    }
    if (home < 0) {
      home = static_cast<int>(groups_.size());
      groups_.emplace_back().elementwise = node->op->cls == OpRecord::Class::kElementwise;
    }
    Group& group = groups_[static_cast<std::size_t>(home)];
    group.members.push_back(node);
    group.instructions += 1 + casts(*node);
    group.inputs += new_inputs(*node, home);
    group.pending_bytes += new_pending_bytes(*node, home);
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (direct[g] && static_cast<int>(g) != home) group.needs |= with_needs(g);
    for (Group& reader : groups_)
      if (reader.needs[static_cast<std::size_t>(home)]) reader.needs |= group.needs;
    group_of_[static_cast<std::size_t>(node->plan.index)] = home;
  }

  GroupSet with_needs(std::size_t g) const {
    GroupSet s = groups_[g].needs;
    s.set(g);
    return s;
  }

  // The node may run in group g if nothing else that it reads must wait for g.
  bool can_join(int g, const Node& node, const GroupSet& direct) const {
    const Group& group = groups_[static_cast<std::size_t>(g)];
    const Node& first = *group.members.front();
    if (!group.elementwise || first.device != node.device || first.traced != node.traced ||
        !(first.shape == node.shape))
      return false;
    if (group.instructions + 1 + casts(node) > kMaxInstructions || group.inputs + new_inputs(node, g) > kMaxInputs)
      return false;
    const auto pending = new_pending_bytes(node, g);
    if (pending > 0 && group.pending_bytes + pending > max_pending_bytes(*node.device)) return false;
    for (std::size_t other = 0; other < groups_.size(); ++other)
      if (direct[other] && groups_[other].needs[static_cast<std::size_t>(g)]) return false;
    return true;
  }

  bool can_merge(int a, int b) const {
    const Group &ga = groups_[static_cast<std::size_t>(a)], &gb = groups_[static_cast<std::size_t>(b)];
    return !ga.needs[static_cast<std::size_t>(b)] && !gb.needs[static_cast<std::size_t>(a)] &&
           ga.instructions + gb.instructions < kMaxInstructions && ga.inputs + gb.inputs < kMaxInputs &&
           ga.pending_bytes + gb.pending_bytes <= max_pending_bytes(*ga.members.front()->device);
  }

  // Group b becomes part of group a.
  void merge(int a, int b) {
    const auto ia = static_cast<std::size_t>(a), ib = static_cast<std::size_t>(b);
    Group &ga = groups_[ia], &gb = groups_[ib];
    for (Node* node : gb.members) group_of_[static_cast<std::size_t>(node->plan.index)] = a;
    std::vector<Node*> members(ga.members.size() + gb.members.size());
    std::merge(ga.members.begin(), ga.members.end(), gb.members.begin(), gb.members.end(), members.begin(),
               [](Node* x, Node* y) { return x->plan.index < y->plan.index; });
    ga.members = std::move(members);
    ga.instructions += gb.instructions;
    ga.inputs += gb.inputs;
    ga.pending_bytes += gb.pending_bytes;
    ga.needs |= gb.needs;
    gb = {};
    gb.merged_away = true;
    for (Group& g : groups_) {
      if (!g.needs[ia] && !g.needs[ib]) continue;
      g.needs.reset(ib);
      g.needs.set(ia);
      g.needs |= ga.needs;
    }
  }

  // Operands that group g would have to read from memory for this node.
  int new_inputs(const Node& node, int g) const {
    int n = 0;
    for (const Node* in : node.inputs()) n += in && (in->base || producer(in) != g);
    return n;
  }

  // Of the node's operands those that other groups of this batch compute and nobody holds.
  std::int64_t new_pending_bytes(const Node& node, int g) const {
    std::int64_t bytes = 0;
    for (const Node* in : node.inputs()) {
      const int from = in ? producer(in) : -1;
      if (from >= 0 && from != g && in->handles() == 0)
        bytes += in->shape.size() * static_cast<std::int64_t>(itemsize(in->dtype));
    }
    return bytes;
  }

  static std::int64_t max_pending_bytes(Device& device) {
    const auto limit = static_cast<std::int64_t>(device.allocator.stats().limit);
    return limit ? std::min(limit / 8, kMaxPendingBytes) : kMaxPendingBytes;
  }

  static DType operand_type(const Node& node, std::size_t i) {
    return node.op->rule == TypeRule::kSelect && i == 0 ? DType::kBool : node.compute;
  }

  static int casts(const Node& node) {
    int n = 0;
    const auto inputs = node.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i] && node.op->rule != TypeRule::kCast) n += inputs[i]->dtype != operand_type(node, i);
    return n;
  }

  // --- ordering

  void emit_in_order() {
    // Close to the order of recording: a group stands where its last operation was recorded.
    std::vector<std::size_t> order;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (!groups_[g].merged_away) order.push_back(g);
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return groups_[a].members.back()->plan.index < groups_[b].members.back()->plan.index;
    });
    GroupSet emitted;
    for (std::size_t left = order.size(); left > 0;) {
      const auto before = left;
      for (auto& g : order) {
        if (g == kEmitted || (groups_[g].needs & ~emitted).any()) continue;
        emit(groups_[g]);
        emitted.set(g);
        g = kEmitted;
        --left;
      }
      if (left == before) throw Error("internal error: the planner made a cycle");
    }
  }

  // --- emission

  void emit(const Group& group) {
    const auto before = tasks_->size();
    if (group.elementwise) emit_program(group);
    else emit_kernel(*group.members.front());
    if (dry_ && tasks_->size() > before)  // the last one: copies for it come first
      for (const Node* node : group.members) dry_->task_of[node] = tasks_->size() - 1;
  }

  Storage* storage_of(const Node& node) const {
    if (dry_)
      if (const auto found = dry_->storages.find(owner_of(&node)); found != dry_->storages.end())
        return found->second.get();
    return node.storage();
  }

  TaskOperand operand(const Node& node) const {
    TaskOperand o;
    o.storage = Ref<Storage>::borrow(storage_of(node));
    o.offset = node.offset;
    o.array = {nullptr, node.shape, strides_of(node), node.dtype, node.strides == nullptr};
    return o;
  }

  TaskOperand result(Node& node, Task& task) {
    auto storage = Storage::create(node);
    storage->producer = &task;
    if (dry_) dry_->storages[&node] = storage;
    else node.set_storage(storage);
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = {nullptr, node.shape, node.shape.dense_strides(), node.dtype, true};
    return o;
  }

  static std::unique_ptr<Task> new_task(const Node& node) {
    auto task = std::make_unique<Task>();
    task->device = node.device;
    task->name = node.op->name;
    task->source = node.source;
    task->sequence = node.sequence;
    task->traced = node.traced;
    return task;
  }

  void emit_kernel(Node& node) {
    auto task = new_task(node);
    task->op = node.op;
    std::vector<Shape> shapes;
    double elements = static_cast<double>(node.shape.size());
    const auto inputs = node.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Node& in = *inputs[i];
      const bool readable = !in.strides || (node.op->accepts_strided &&
                                            node.op->accepts_strided(in.shape, *in.strides, static_cast<int>(i)));
      task->inputs.push_back(readable ? operand(in) : dense_copy(in, *task));
      shapes.push_back(in.shape);
      elements += static_cast<double>(in.shape.size());
    }
    task->outputs.push_back(result(node, *task));
    const double work = node.op->cost ? node.op->cost(shapes, node.shape, node.params.get()) : elements;
    task->cost_ns = kKernelOverheadNs + work / kOperationsPerNs;
    if (!dry_) task->params = std::move(node.params);
    if (!dry_ && settings().log_plan) log_line("plan kernel " + std::string(task->name) + " " + node.shape.str());
    tasks_->push_back(std::move(task));
  }

  // A task of its own that makes a view's elements dense.
  TaskOperand dense_copy(const Node& view, const Task& reader) {
    auto task = std::make_unique<Task>();
    task->device = view.device;
    task->name = "copy";
    task->source = reader.source;
    task->sequence = reader.sequence;
    task->program = std::make_unique<Program>();
    task->program->shape = view.shape;
    task->program->inputs.push_back({view.dtype, *view.strides, false});
    task->program->outputs.push_back({0, view.dtype});
    task->inputs.push_back(operand(view));
    auto storage = Storage::create(view);
    if (!dry_) count(counters.copies);
    storage->producer = task.get();
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = {nullptr, view.shape, view.shape.dense_strides(), view.dtype, true};
    task->outputs.push_back(o);
    task->cost_ns = cpu::program_cost_ns(*task->program);
    tasks_->push_back(std::move(task));
    return o;
  }

  void emit_program(const Group& group) {
    for (Node* node : group.members)
      for (Node* in : node->inputs())
        if (in && in->plan.index >= 0 && is_member(in, group)) ++in->plan.uses;

    auto task = new_task(*group.members.back());
    ProgramWriter writer(*this, *task, group.members.front()->shape);
    for (Node* node : group.members) {
      Program::Instruction instruction{node->op->code, node->compute, node->dtype,
                                       static_cast<std::uint8_t>(node->op->arity), {}, node->source, node->sequence};
      const auto inputs = node->inputs();
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const auto type = operand_type(*node, i);
        std::uint16_t value;
        if (!inputs[i]) value = writer.constant(type, node->scalars[i].value);
        else if (is_member(inputs[i], group)) value = writer.converted(inputs[i]->plan.value, inputs[i]->dtype, type, *node);
        else value = writer.converted(writer.input(*inputs[i]), inputs[i]->dtype, type, *node);
        instruction.in[i] = value;
      }
      node->plan.value = writer.add(instruction);
      // Read from outside the group? Then it is written to memory. (One reference is the batch's own.)
      if (node->handles() > 0 || node->refs() > 1 + node->plan.uses) {
        task->outputs.push_back(result(*node, *task));
        writer.output(node->plan.value, node->dtype);
      }
    }
    if (task->outputs.empty()) return;  // the last holder let go while this was planned
    task->program = writer.finish();
    task->cost_ns = cpu::program_cost_ns(*task->program);
    if (!dry_) count(counters.fused_operations, static_cast<std::int64_t>(group.members.size()));
    if (!dry_ && settings().log_plan)
      log_line("plan program of " + std::to_string(group.members.size()) + " operations over " +
               task->program->shape.str() + ", " + std::to_string(task->inputs.size()) + " inputs, " +
               std::to_string(task->outputs.size()) + " outputs");
    tasks_->push_back(std::move(task));
  }

  bool is_member(const Node* node, const Group& group) const {
    return node->plan.index >= 0 && !node->base &&
           &groups_[static_cast<std::size_t>(group_of_[static_cast<std::size_t>(node->plan.index)])] == &group;
  }

  // Collects a program. While it is written inputs, constants and results have separate numbers, since how many there
  // are is not known; finish() puts them in a row.
  class ProgramWriter {
   public:
    ProgramWriter(const Batch& batch, Task& task, const Shape& shape)
        : batch_(batch), task_(task), program_(std::make_unique<Program>()) {
      program_->shape = shape;
    }

    std::uint16_t input(const Node& node) {
      for (std::size_t i = 0; i < seen_.size(); ++i)
        if (seen_[i] == &node) return static_cast<std::uint16_t>(i);
      seen_.push_back(&node);
      task_.inputs.push_back(batch_.operand(node));
      Strides strides = task_.inputs.back().array.strides;
      const Shape& shape = program_->shape;
      for (int axis = 0; axis < kMaxAxes; ++axis)
        if (axis >= node.shape.ndim() || (node.shape[axis] == 1 && shape.at_or_one(axis) != 1))
          strides[static_cast<std::size_t>(axis)] = 0;
      program_->inputs.push_back({node.dtype, strides, !node.strides && node.shape.size() == shape.size()});
      return static_cast<std::uint16_t>(seen_.size() - 1);
    }

    std::uint16_t constant(DType dtype, double value) {
      auto& all = program_->constants;
      for (std::size_t i = 0; i < all.size(); ++i)
        if (all[i].dtype == dtype && std::bit_cast<std::uint64_t>(all[i].value) == std::bit_cast<std::uint64_t>(value))
          return static_cast<std::uint16_t>(kConstant + i);
      all.push_back({dtype, value});
      return static_cast<std::uint16_t>(kConstant + all.size() - 1);
    }

    std::uint16_t converted(std::uint16_t value, DType from, DType to, const Node& reader) {
      static const std::uint16_t cast = find_op("cast")->code;
      if (from == to) return value;
      for (auto& c : conversions_)
        if (c.value == value && c.to == to) return c.result;
      const auto result = add({cast, from, to, 1, {value, 0, 0}, reader.source, reader.sequence});
      conversions_.push_back({value, to, result});
      return result;
    }

    std::uint16_t add(const Program::Instruction& instruction) {
      program_->instructions.push_back(instruction);
      return static_cast<std::uint16_t>(kResult + program_->instructions.size() - 1);
    }

    void output(std::uint16_t value, DType dtype) { program_->outputs.push_back({value, dtype}); }

    std::unique_ptr<Program> finish() {
      for (auto& instruction : program_->instructions)
        for (auto& value : instruction.in) value = final_number(value);
      for (auto& out : program_->outputs) out.value = final_number(out.value);
      return std::move(program_);
    }

   private:
    static constexpr std::uint16_t kConstant = 0x4000, kResult = 0x8000;

    std::uint16_t final_number(std::uint16_t value) const {
      const auto inputs = program_->inputs.size();
      if (value < kConstant) return value;
      if (value < kResult) return static_cast<std::uint16_t>(inputs + value - kConstant);
      return static_cast<std::uint16_t>(inputs + program_->constants.size() + value - kResult);
    }

    struct Conversion {
      std::uint16_t value;
      DType to;
      std::uint16_t result;
    };
    const Batch& batch_;
    Task& task_;
    std::unique_ptr<Program> program_;
    std::vector<const Node*> seen_;
    std::vector<Conversion> conversions_;
  };

  static constexpr std::size_t kEmitted = kMaxBatch;

  std::span<Node* const> nodes_;
  DryPlan* dry_;
  std::vector<int> group_of_;  // by position in the batch
  std::vector<Group> groups_;
  std::vector<std::unique_ptr<Task>>* tasks_ = nullptr;
};

}  // namespace

DryPlan plan_dry(const std::vector<Node*>& batch) {
  DryPlan dry;
  const std::span all(batch);
  for (std::size_t at = 0; at < all.size(); at += kMaxBatch)
    Batch(all.subspan(at, std::min(kMaxBatch, all.size() - at)), &dry).run(dry.tasks);
  return dry;
}

std::vector<std::unique_ptr<Task>> plan(const std::vector<Node*>& batch) {
  std::vector<std::unique_ptr<Task>> tasks;
  const std::span all(batch);
  for (std::size_t at = 0; at < all.size(); at += kMaxBatch)
    Batch(all.subspan(at, std::min(kMaxBatch, all.size() - at))).run(tasks);
  return tasks;
}

}  // namespace owl
