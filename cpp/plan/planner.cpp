// Plans a batch in four steps: group (which operations run together), lay out (which images stay channels last between
// kernels), order (groups after what they read), emit (a task each). A group is elementwise operations over one shape,
// which become one fused program, or a kernel, perhaps with such a program before it, behind it or both: they run range
// by range, where the kernel reads or has just written.
#include "plan/planner.h"

#include <algorithm>
#include <bit>
#include <bitset>
#include <optional>
#include <utility>

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

constexpr double kLongNs = 50e3;            // a kernel that has the whole device for itself anyway
constexpr std::int64_t kLeastChannels = 8;  // fewer leave vectors that run over channels half empty

using GroupSet = std::bitset<kMaxBatch>;

// Elementwise operations that become one program.
struct Part {
  std::vector<Node*> members;        // in the order of recording
  int instructions = 0, inputs = 0;  // upper bounds, casts included
  std::int64_t pending_bytes = 0;    // of inputs as kMaxPendingBytes has them
  bool gathers = false;              // an operand is a strided view
};

struct Group {
  Part before;             // without a kernel: all there is
  Node* kernel = nullptr;
  double kernel_ns = 0;    // its cost
  Part after;
  bool channels_last = false;  // its results: images in that order
  GroupSet needs;          // groups of this batch that must run before, directly or not
  bool merged_away = false;

  Part& part(TaskPart p) { return p == TaskPart::kAfter ? after : before; }
  const Part& part(TaskPart p) const { return p == TaskPart::kAfter ? after : before; }
  // Where the operation stands that was recorded last.
  std::int32_t place() const {
    std::int32_t at = kernel ? kernel->plan.index : -1;
    for (const Part* p : {&before, &after})
      if (!p->members.empty()) at = std::max(at, p->members.back()->plan.index);
    return at;
  }
};

const Node* owner_of(const Node* node) { return node->base ? node->base : node; }

class Batch {
 public:
  // With `dry`, nodes stay as they are and storages go there.
  explicit Batch(std::span<Node* const> nodes, DryPlan* dry = nullptr) : nodes_(nodes), dry_(dry) {
    for (std::size_t i = 0; i < nodes.size(); ++i) nodes[i]->plan = {.index = static_cast<std::int32_t>(i)};
    group_of_.resize(nodes.size());
  }

  void run(std::vector<std::unique_ptr<Task>>& tasks) {
    tasks_ = &tasks;
    for (Node* node : nodes_) assign(node);
    for (const Node* node : nodes_) count_uses(*node);
    choose_layouts();
    emit_in_order();
    for (Node* node : nodes_) {
      node->plan.index = -1;
      if (dry_) continue;
      node->clear_inputs();
      node->release();
    }
  }

 private:
  class ProgramWriter;

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
    const bool elementwise = is_elementwise(*node);
    int home = elementwise ? home_of_elementwise(*node, direct, viewed) : home_of_kernel(*node, direct, viewed);
    const bool is_new = home < 0;
    if (is_new) {
      home = static_cast<int>(groups_.size());
      groups_.emplace_back();
      node->plan.part = elementwise ? TaskPart::kBefore : TaskPart::kKernel;
    }
    Group& group = groups_[static_cast<std::size_t>(home)];
    if (elementwise) {
      Part& part = group.part(node->plan.part);
      part.members.push_back(node);
      part.instructions += 1 + casts(*node);
      part.inputs += new_inputs(*node, home);
      part.pending_bytes += new_pending_bytes(*node, home);
      part.gathers |= gathers(*node);
    } else {
      group.kernel = node;
      group.kernel_ns = kernel_cost_ns(*node);
    }
    direct.reset(static_cast<std::size_t>(home));
    for (auto g = direct._Find_first(); g < groups_.size(); g = direct._Find_next(g)) group.needs |= with_needs(g);
    if (!is_new)
      for (Group& reader : groups_)
        if (reader.needs[static_cast<std::size_t>(home)]) reader.needs |= group.needs;
    group_of_[static_cast<std::size_t>(node->plan.index)] = home;
  }

  // The group that the operation joins, -1: a new one. Sets node.plan.part; groups that it connects are merged.
  int home_of_elementwise(Node& node, GroupSet& direct, const GroupSet& viewed) {
    int home = -1;
    for (const Node* in : node.inputs()) {
      const int g = in ? producer(in) : -1;
      if (g < 0 || g == home || viewed[static_cast<std::size_t>(g)]) continue;
      const auto part = place_in(g, node, direct);
      if (!part) continue;
      // Rather a kernel's task than a program's, and of two kernels the later one's: the other has run by then.
      if (home < 0 || rank(g) > rank(home)) {
        home = g;
        node.plan.part = *part;
      }
    }
    if (home < 0) return -1;
    for (const Node* in : node.inputs()) {
      const int g = in ? producer(in) : -1;
      if (g < 0 || g == home || viewed[static_cast<std::size_t>(g)] || !place_in(g, node, direct)) continue;
      if (!can_merge(home, g, node.plan.part)) continue;
      merge(home, g, node.plan.part);
      direct.reset(static_cast<std::size_t>(g));
    }
    return home;
  }

  int rank(int g) const {
    const Node* kernel = groups_[static_cast<std::size_t>(g)].kernel;
    return kernel ? kernel->plan.index : -1;
  }

  // A kernel that can read operand 0 range by range joins the program that computes it.
  int home_of_kernel(Node& node, const GroupSet& direct, const GroupSet& viewed) const {
    if (!node.op->reads_ranges || node.traced) return -1;
    const Node* in = node.inputs()[0];
    const int g = producer(in);
    if (g < 0 || viewed[static_cast<std::size_t>(g)] || in->device != node.device) return -1;
    const Group& group = groups_[static_cast<std::size_t>(g)];
    if (group.kernel || group.before.gathers || in->traced || !node.op->reads_ranges(in->shape, node.params.get()))
      return -1;
    for (const Node* other : node.inputs().subspan(1))
      if (other && producer(other) == g) return -1;
    if (waits_for(direct, g)) return -1;
    node.plan.part = TaskPart::kKernel;
    return g;
  }

  GroupSet with_needs(std::size_t g) const {
    GroupSet s = groups_[g].needs;
    s.set(g);
    return s;
  }

  // Whether one of these groups must run after g.
  bool waits_for(const GroupSet& some, int g) const {
    for (std::size_t other = 0; other < groups_.size(); ++other)
      if (some[other] && groups_[other].needs[static_cast<std::size_t>(g)]) return true;
    return false;
  }

  // The part of group g in which the elementwise operation may run, if nothing else that it reads must wait for g.
  std::optional<TaskPart> place_in(int g, const Node& node, const GroupSet& direct) const {
    const Group& group = groups_[static_cast<std::size_t>(g)];
    bool reads_before = false, reads_result = false;
    for (const Node* in : node.inputs())
      if (in && producer(in) == g) (in->plan.part == TaskPart::kBefore ? reads_before : reads_result) = true;
    if (reads_before && reads_result) return {};
    const auto place = reads_result ? TaskPart::kAfter : TaskPart::kBefore;
    const Node& first = reads_result ? *group.kernel : *group.before.members.front();
    if (first.device != node.device || first.traced != node.traced || !(first.shape == node.shape)) return {};
    if (group.kernel && (node.traced || gathers(node) || !may_wait(g, direct))) return {};
    if (reads_result && !group.kernel->op->finishes_ranges) return {};
    const Part& part = group.part(place);
    if (part.instructions + 1 + casts(node) > kMaxInstructions || part.inputs + new_inputs(node, g) > kMaxInputs)
      return {};
    const auto pending = new_pending_bytes(node, g);
    if (pending > 0 && part.pending_bytes + pending > max_pending_bytes(*node.device)) return {};
    if (waits_for(direct, g)) return {};
    return place;
  }

  // Whether group g's kernel may wait for these groups too: it has to anyway, they are programs that need no more than
  // it does, or it is so long that it takes the whole device. Short kernels run side by side, and should not be tied to
  // one another.
  bool may_wait(int g, const GroupSet& more) const {
    const Group& group = groups_[static_cast<std::size_t>(g)];
    if (group.kernel_ns >= kLongNs) return true;
    const GroupSet known = with_needs(static_cast<std::size_t>(g));
    for (std::size_t other = 0; other < groups_.size(); ++other)
      if (more[other] && !known[other] && (groups_[other].kernel || (groups_[other].needs & ~known).any())) return false;
    return true;
  }

  bool can_merge(int a, int b, TaskPart place) const {
    const Group &ga = groups_[static_cast<std::size_t>(a)], &gb = groups_[static_cast<std::size_t>(b)];
    const Part &pa = ga.part(place), &pb = gb.before;
    return !gb.kernel && !ga.needs[static_cast<std::size_t>(b)] && !gb.needs[static_cast<std::size_t>(a)] &&
           (!ga.kernel || (!pb.gathers && may_wait(a, gb.needs))) &&
           pa.instructions + pb.instructions < kMaxInstructions && pa.inputs + pb.inputs < kMaxInputs &&
           pa.pending_bytes + pb.pending_bytes <= max_pending_bytes(*gb.before.members.front()->device);
  }

  // Group b, a program, becomes part of group a.
  void merge(int a, int b, TaskPart place) {
    const auto ia = static_cast<std::size_t>(a), ib = static_cast<std::size_t>(b);
    Group &ga = groups_[ia], &gb = groups_[ib];
    Part &pa = ga.part(place), &pb = gb.before;
    for (Node* node : pb.members) {
      group_of_[static_cast<std::size_t>(node->plan.index)] = a;
      node->plan.part = place;
    }
    std::vector<Node*> members(pa.members.size() + pb.members.size());
    std::merge(pa.members.begin(), pa.members.end(), pb.members.begin(), pb.members.end(), members.begin(),
               [](Node* x, Node* y) { return x->plan.index < y->plan.index; });
    pa.members = std::move(members);
    pa.instructions += pb.instructions;
    pa.inputs += pb.inputs;
    pa.pending_bytes += pb.pending_bytes;
    pa.gathers |= pb.gathers;
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

  static bool is_elementwise(const Node& node) { return node.op->cls == OpRecord::Class::kElementwise; }

  // Whether the operation would gather an operand from a strided view, which only a program of its own does well.
  static bool gathers(const Node& node) {
    return std::ranges::any_of(node.inputs(), [](const Node* in) { return in && in->strides; });
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

  // --- layouts

  // Images stay channels last between kernels that know this layout, and the programs around them, so that only the
  // first and the last of a chain convert. Every group that may have its results so has them so at first; where one
  // meets a reader or an operand that must be otherwise it gives in, until nothing changes.
  void choose_layouts() {
    std::vector<unsigned> knows(groups_.size());  // OpRecord::channels_last
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (const Node* kernel = groups_[g].kernel; kernel && kernel->op->channels_last && !kernel->traced &&
                                                  kernel->dtype == DType::kFloat32 &&
                                                  kernel->device->backend->knows_channels_last())
        knows[g] = kernel->op->channels_last(shapes_of_inputs(*kernel), kernel->shape, kernel->params.get());
    if (std::ranges::none_of(knows, [](unsigned k) { return k != 0; })) return;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      groups_[g].channels_last = may_be_channels_last(groups_[g], knows[g] & 1);
    for (bool changed = true; changed;) {
      changed = false;
      const auto give_in = [&](Group& group) { changed |= std::exchange(group.channels_last, false); };
      for (const Node* reader : nodes_) {
        const int r = producer(reader);
        Group& group = groups_[static_cast<std::size_t>(r)];
        const auto inputs = reader->inputs();
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          const Node* in = inputs[i];
          if (!in || is_member(in, group)) continue;
          const bool kernel_knows = knows[static_cast<std::size_t>(r)] >> (i + 1) & 1;
          const bool same = reader != group.kernel && in->shape.size() == reader->shape.size();
          if (is_channels_last(*in) && !(reader == group.kernel ? kernel_knows : same && group.channels_last))
            give_in(groups_[static_cast<std::size_t>(producer(in))]);
          if (same && !is_channels_last(*in)) give_in(group);
        }
      }
    }
  }

  // Whether only operations of this batch read the group's results, and they are float32 images of many channels.
  bool may_be_channels_last(const Group& group, bool kernel_knows) const {
    if (group.merged_away || (group.kernel && !(kernel_knows && group.before.members.empty()))) return false;
    const auto may_be = [](const Node* node) {
      return node->shape.ndim() == 4 && node->shape[2] >= kLeastChannels && !node->traced &&
             (!is_wanted(*node) || (node->dtype == DType::kFloat32 && node->handles() == 0 &&
                                    node->refs() == 1 + node->plan.uses + node->plan.outside_uses));
    };
    return (!group.kernel || may_be(group.kernel)) && std::ranges::all_of(group.before.members, may_be) &&
           std::ranges::all_of(group.after.members, may_be);
  }

  bool is_channels_last(const Node& node) const {
    return !node.base && node.plan.index >= 0 && groups_[static_cast<std::size_t>(producer(&node))].channels_last;
  }

  void count_uses(const Node& reader) const {
    const Group& group = groups_[static_cast<std::size_t>(producer(&reader))];
    for (Node* in : reader.inputs())
      if (in && !in->base && in->plan.index >= 0) ++(is_member(in, group) ? in->plan.uses : in->plan.outside_uses);
  }

  // --- ordering

  void emit_in_order() {
    // Close to the order of recording: a group stands where its last operation was recorded.
    std::vector<std::size_t> order;
    for (std::size_t g = 0; g < groups_.size(); ++g)
      if (!groups_[g].merged_away) order.push_back(g);
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return groups_[a].place() < groups_[b].place();
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
    auto task = new_task(group.kernel ? *group.kernel : *group.before.members.back());
    task->inputs.reserve(static_cast<std::size_t>(group.before.inputs + group.after.inputs) +
                         (group.kernel ? group.kernel->inputs().size() : 0));
    if (!group.before.members.empty()) task->before = emit_before(group, *task);
    if (group.kernel) emit_kernel(group, *task);
    if (!group.after.members.empty()) task->after = emit_after(group, *task);
    if (task->outputs.empty()) return;  // the last holder let go while this was planned
    const auto fused = group.before.members.size() + group.after.members.size();
    if (!dry_) count(counters.fused_operations, static_cast<std::int64_t>(fused));
    if (!dry_ && settings().log_plan) log_plan(*task, fused);
    tasks_->push_back(std::move(task));
    if (!dry_) return;
    for (const Part* part : {&group.before, &group.after})
      for (const Node* node : part->members) dry_->task_of[node] = tasks_->size() - 1;
    if (group.kernel) dry_->task_of[group.kernel] = tasks_->size() - 1;
  }

  // Whether somebody outside the group reads the value, so that it must be in memory. (One reference is the batch's own.)
  static bool is_wanted(const Node& node) { return node.handles() > 0 || node.refs() > 1 + node.plan.uses; }

  static void log_plan(const Task& task, std::size_t fused) {
    const auto operations = std::to_string(fused) + (fused == 1 ? " operation" : " operations");
    const auto shape = task.outputs.back().array.shape.str();
    if (task.op) return log_line("plan kernel " + std::string(task.name) + " " + shape + (fused ? " with " + operations : ""));
    log_line("plan program of " + operations + " over " + shape + ", " + std::to_string(task.inputs.size()) +
             " inputs, " + std::to_string(task.outputs.size()) + " outputs");
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
    if (is_channels_last(node)) lay_channels_last(o.array);
    return o;
  }

  static void lay_channels_last(ArrayRef& array) {
    array.strides = channels_last_strides(array.shape);
    array.channels_last = true;
  }

  TaskOperand result(Node& node, Task& task, TaskPart part) {
    auto storage = Storage::create(node);
    storage->producer = &task;
    if (dry_) dry_->storages[&node] = storage;
    else node.set_storage(storage);
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = {nullptr, node.shape, node.shape.dense_strides(), node.dtype, true};
    if (is_channels_last(node)) lay_channels_last(o.array);
    o.part = part;
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

  static std::vector<Shape> shapes_of_inputs(const Node& node) {
    std::vector<Shape> shapes;
    shapes.reserve(node.inputs().size());
    for (const Node* in : node.inputs()) shapes.push_back(in->shape);
    return shapes;
  }

  static double kernel_cost_ns(const Node& node) {
    double work = static_cast<double>(node.shape.size());
    for (const Node* in : node.inputs()) work += static_cast<double>(in->shape.size());
    if (node.op->cost) work = node.op->cost(shapes_of_inputs(node), node.shape, node.params.get());
    return kKernelOverheadNs + work / kOperationsPerNs;
  }

  // The kernel's operands, and its result where no program behind it has it first.
  void emit_kernel(const Group& group, Task& task) {
    Node& node = *group.kernel;
    task.op = node.op;
    const auto inputs = node.inputs();
    for (std::size_t i = task.before ? 1 : 0; i < inputs.size(); ++i) {
      const Node& in = *inputs[i];
      const bool readable = !in.strides || (node.op->accepts_strided &&
                                            node.op->accepts_strided(in.shape, *in.strides, static_cast<int>(i)));
      task.inputs.push_back(readable ? operand(in) : dense_copy(in, task));
      task.inputs.back().replaceable = node.op->in_place == static_cast<int>(i);
    }
    if (group.after.members.empty()) {
      task.kernel_output = static_cast<int>(task.outputs.size());
      task.outputs.push_back(result(node, task, TaskPart::kKernel));
    }
    task.cost_ns += group.kernel_ns;
    if (!dry_) task.params = std::move(node.params);
  }

  // A task of its own that makes a view's elements dense.
  TaskOperand dense_copy(const Node& view, const Task& reader) {
    auto task = std::make_unique<Task>();
    task->device = view.device;
    task->name = "copy";
    task->source = reader.source;
    task->sequence = reader.sequence;
    task->before = std::make_unique<Program>();
    task->before->shape = view.shape;
    task->before->inputs.push_back({view.dtype, *view.strides, false});
    task->before->outputs.push_back({0, view.dtype});
    task->inputs.push_back(operand(view));
    task->inputs.back().part = TaskPart::kBefore;
    auto storage = Storage::create(view);
    storage->op = task->name;
    storage->source = task->source;
    if (!dry_) count(counters.copies);
    storage->producer = task.get();
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = {nullptr, view.shape, view.shape.dense_strides(), view.dtype, true};
    o.part = TaskPart::kBefore;
    task->outputs.push_back(o);
    o.part = TaskPart::kKernel;
    task->cost_ns = cpu::program_cost_ns(*task->before);
    tasks_->push_back(std::move(task));
    return o;
  }

  // Elementwise operations alone, or in front of the kernel, whose operand is the program's last output.
  std::unique_ptr<Program> emit_before(const Group& group, Task& task) {
    ProgramWriter writer(*this, task, TaskPart::kBefore, group.before.members.front()->shape, group.channels_last);
    for (Node* node : group.before.members) emit_operation(*node, group, task, writer);
    if (group.kernel) {
      const Node& in = *group.kernel->inputs()[0];
      writer.output(in.plan.value, in.dtype);
    }
    return finish_program(writer, task);
  }

  // Elementwise operations on the kernel's result, the program's input 0.
  std::unique_ptr<Program> emit_after(const Group& group, Task& task) {
    Node& kernel = *group.kernel;
    ProgramWriter writer(*this, task, TaskPart::kAfter, kernel.shape, group.channels_last);
    kernel.plan.value = writer.result_of(kernel);
    const auto first = task.outputs.size();
    if (is_wanted(kernel)) {
      task.outputs.push_back(result(kernel, task, TaskPart::kAfter));
      writer.output(kernel.plan.value, kernel.dtype);
    }
    for (Node* node : group.after.members) emit_operation(*node, group, task, writer);
    if (task.outputs.size() == first) {  // the last holder let go while this was planned
      task.outputs.push_back(result(kernel, task, TaskPart::kAfter));
      writer.output(kernel.plan.value, kernel.dtype);
    }
    // The kernel writes where one of these results will be, if its elements are as large.
    for (std::size_t i = first; i < task.outputs.size() && task.kernel_output < 0; ++i)
      if (itemsize(task.outputs[i].array.dtype) == itemsize(kernel.dtype)) {
        task.kernel_output = static_cast<int>(i);
        task.outputs[i].part = TaskPart::kKernel;
      }
    return finish_program(writer, task);
  }

  void emit_operation(Node& node, const Group& group, Task& task, ProgramWriter& writer) {
    Program::Instruction instruction{node.op->code, node.compute, node.dtype,
                                     static_cast<std::uint8_t>(node.op->arity), {}, node.source, node.sequence};
    const auto inputs = node.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto type = operand_type(node, i);
      if (!inputs[i]) {
        instruction.in[i] = writer.constant(type, node.scalars[i].value);
      } else {
        const auto value = is_member(inputs[i], group) ? inputs[i]->plan.value : writer.input(*inputs[i]);
        instruction.in[i] = writer.converted(value, inputs[i]->dtype, type, node);
      }
    }
    node.plan.value = writer.add(instruction);
    if (!is_wanted(node)) return;
    task.outputs.push_back(result(node, task, node.plan.part));
    writer.output(node.plan.value, node.dtype);
  }

  static std::unique_ptr<Program> finish_program(ProgramWriter& writer, Task& task) {
    auto program = writer.finish();
    task.cost_ns += cpu::program_cost_ns(*program);
    return program;
  }

  bool is_member(const Node* node, const Group& group) const {
    return node->plan.index >= 0 && !node->base &&
           &groups_[static_cast<std::size_t>(group_of_[static_cast<std::size_t>(node->plan.index)])] == &group;
  }

  // Collects a program. While it is written inputs, constants and results have separate numbers, since how many there
  // are is not known; finish() puts them in a row.
  class ProgramWriter {
   public:
    // With `channels_last` the program runs over its axes in that order.
    ProgramWriter(const Batch& batch, Task& task, TaskPart part, const Shape& shape, bool channels_last)
        : batch_(batch), task_(task), part_(part), shape_(shape), channels_last_(channels_last),
          program_(std::make_unique<Program>()) {
      program_->shape = shape;
      const auto& order = channels_last_order;
      if (channels_last) program_->shape = {shape[order[0]], shape[order[1]], shape[order[2]], shape[order[3]]};
    }

    // The kernel's result as input 0, which is not among the task's operands.
    std::uint16_t result_of(const Node& kernel) {
      seen_.push_back(&kernel);
      program_->inputs.push_back({kernel.dtype, program_->shape.dense_strides(), true});
      return 0;
    }

    std::uint16_t input(const Node& node) {
      for (std::size_t i = 0; i < seen_.size(); ++i)
        if (seen_[i] == &node) return static_cast<std::uint16_t>(i);
      seen_.push_back(&node);
      task_.inputs.push_back(batch_.operand(node));
      Strides strides = task_.inputs.back().array.strides;
      for (int axis = 0; axis < kMaxAxes; ++axis)
        if (axis >= node.shape.ndim() || (node.shape[axis] == 1 && shape_.at_or_one(axis) != 1))
          strides[static_cast<std::size_t>(axis)] = 0;
      if (channels_last_) {
        const Strides logical = strides;
        for (std::size_t axis = 0; axis < 4; ++axis) strides[axis] = logical[static_cast<std::size_t>(channels_last_order[axis])];
      }
      const bool dense = !node.strides && node.shape.size() == shape_.size();
      program_->inputs.push_back({node.dtype, strides, dense});
      task_.inputs.back().part = part_;
      task_.inputs.back().replaceable = dense;
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
    const TaskPart part_;
    const Shape shape_;
    const bool channels_last_;
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
