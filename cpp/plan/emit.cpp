// Emission: a group becomes a task of up to three parts, the program before its kernel, the kernel, the program after
// it. Only what a handle or another group reads is written to memory.
#include "plan/emit.h"

#include <string>
#include <utility>

#include "base/counters.h"
#include "base/env.h"
#include "graph/record.h"
#include "plan/program_writer.h"

namespace owl::planner {

namespace {

void lay_channels_last(ArrayRef& array) {
  array.strides = channels_last_strides(array.shape);
  array.channels_last = true;
}

void log_plan(const Task& task, std::size_t fused) {
  const auto operations = std::to_string(fused) + (fused == 1 ? " operation" : " operations");
  const auto shape = shown_result(task).shape.str();
  if (task.op)
    return log_line("plan kernel " + std::string(task.name) + " " + shape + (fused ? " with " + operations : ""));
  log_line("plan program of " + operations + " over " + shape + ", " + std::to_string(task.inputs.size()) +
           " inputs, " + std::to_string(task.outputs.size()) + " outputs");
}

Results results_of(const Node& node) {
  const auto inputs = node.inputs();
  if (!node.op->effect) return node.op->infer(inputs, node.params.get());
  return with_token(node.op->infer(inputs.first(inputs.size() - 1), node.params.get()));
}

// The task, so far without parts, of a group with this kernel or last operation.
std::unique_ptr<Task> new_task(const Node& node) {
  auto task = std::make_unique<Task>();
  task->pinned = true;
  task->device = node.device;
  task->name = node.op->name;
  task->source = node.source;
  task->sequence = node.sequence;
  task->traced = node.traced;
  return task;
}

std::unique_ptr<Program> finish_program(ProgramWriter& writer, Task& task) {
  auto program = writer.finish();
  task.cost_ns += task.device->backend->program_cost_ns(*program);
  return program;
}

class Emission {
 public:
  Emission(const Batch& batch, std::vector<std::unique_ptr<Task>>& tasks, DryPlan* dry)
      : batch_(batch), tasks_(tasks), dry_(dry) {}

  void emit(const Group& group) {
    auto task = new_task(group.kernel ? *group.kernel : *group.before.members.back());
    task->inputs.reserve(static_cast<std::size_t>(group.before.load.inputs + group.after.load.inputs) +
                         (group.kernel ? group.kernel->inputs().size() : 0));
    if (!group.before.members.empty()) task->before = emit_before(group, *task);
    if (group.kernel) emit_kernel(group, *task);
    if (!group.after.members.empty()) task->after = emit_after(group, *task);
    if (task->outputs.empty()) return;  // the last handle was dropped during planning
    const auto fused = group.before.members.size() + group.after.members.size();
    if (!dry_) count(counters.fused_operations, static_cast<std::int64_t>(fused));
    if (!dry_ && settings().log_plan) log_plan(*task, fused);
    tasks_.push_back(std::move(task));
    if (dry_) note_task_of(group);
  }

 private:
  void note_task_of(const Group& group) {
    for (const Part* part : {&group.before, &group.after})
      for (const Node* node : part->members) dry_->task_of[node] = tasks_.size() - 1;
    if (group.kernel) dry_->task_of[group.kernel] = tasks_.size() - 1;
  }

  // --- operands and results

  Storage* storage_of(const Node& node) const {
    if (dry_)
      if (const auto found = dry_->storages.find(DryPlan::value_of(node)); found != dry_->storages.end())
        return found->second.get();
    return node.storage();
  }

  TaskOperand operand(const Node& node) const {
    TaskOperand o;
    o.storage = Ref<Storage>::borrow(storage_of(node));
    o.offset = node.offset;
    o.array = {nullptr, node.shape, strides_of(node), node.dtype, node.strides == nullptr};
    if (batch_.is_channels_last(node)) lay_channels_last(o.array);
    return o;
  }

  TaskOperand result(Node& node, Task& task, TaskPart part) {
    auto storage = storage_for(node);
    storage->producer = &task;
    if (dry_) dry_->storages[DryPlan::value_of(node)] = storage;
    else node.set_storage(storage);
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = {nullptr, node.shape, node.shape.dense_strides(), node.dtype, true};
    if (batch_.is_channels_last(node)) lay_channels_last(o.array);
    o.part = part;
    return o;
  }

  // --- the kernel

  // The kernel's operands, and its result where no program behind it has it first.
  void emit_kernel(const Group& group, Task& task) {
    Node& node = *group.kernel;
    const KernelTraits& traits = traits_of(node);
    task.op = node.op;
    const auto inputs = node.inputs();
    for (std::size_t i = task.before ? 1 : 0; i < inputs.size(); ++i) {
      const Node& in = *inputs[i];
      const bool readable = !in.strides || (traits.accepts_strided &&
                                            traits.accepts_strided(in.shape, *in.strides, static_cast<int>(i)));
      task.inputs.push_back(readable ? operand(in) : dense_copy(in, task));
      task.inputs.back().replaceable = traits.in_place == static_cast<int>(i);
    }
    if (node.results) {
      emit_results(node, task);
    } else if (group.after.members.empty()) {
      task.kernel_output = static_cast<int>(task.outputs.size());
      task.outputs.push_back(result(node, task, TaskPart::kKernel));
    }
    task.cost_ns += group.kernel_ns;
    // A planned node releases it, like its operands; what has none keeps it, so that a tape can draw it again.
    task.params = dry_ || node.op->arity == 0 ? node.params : std::move(node.params);
  }

  // Of several results those for which a node stands; an effect's all.
  void emit_results(Node& node, Task& task) {
    const Results types = results_of(node);
    for (std::uint16_t i = 0; i < node.result_count; ++i) {
      const bool wanted = node.op->effect || node.results[i].nodes.load(std::memory_order_acquire) > 0;
      task.kernel_outputs.push_back(wanted ? static_cast<int>(task.outputs.size()) : -1);
      if (!wanted) continue;
      const auto& [shape, dtype, device] = types[i];
      TaskOperand o;
      o.storage = Storage::create(device ? *device : *node.device, shape, dtype, node.op->name, node.source);
      o.storage->producer = &task;
      o.array = {nullptr, shape, shape.dense_strides(), dtype, true};
      o.storage->token = node.op->effect && i + 1 == node.result_count;
      if (dry_) dry_->storages[{&node, i}] = o.storage;
      else node.results[i].storage = o.storage;
      task.outputs.push_back(std::move(o));
    }
    if (!dry_) node.set_storage({});
  }

  // A task of its own that makes a view's elements dense.
  TaskOperand dense_copy(const Node& view, const Task& reader) {
    auto task = std::make_unique<Task>();
    task->pinned = true;
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
    auto storage = Storage::create(*view.device, view.shape, view.dtype, task->name, task->source);
    if (!dry_) count(counters.copies);
    storage->producer = task.get();
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = {nullptr, view.shape, view.shape.dense_strides(), view.dtype, true};
    o.part = TaskPart::kBefore;
    task->outputs.push_back(o);
    o.part = TaskPart::kKernel;
    task->cost_ns = task->device->backend->program_cost_ns(*task->before);
    tasks_.push_back(std::move(task));
    return o;
  }

  // --- programs

  // Elementwise operations alone, or in front of the kernel, whose operand is the program's last output.
  std::unique_ptr<Program> emit_before(const Group& group, Task& task) {
    ProgramWriter writer(group.before.members.front()->shape, group.before.load, group.channels_last);
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
    ProgramWriter writer(kernel.shape, group.after.load, group.channels_last);
    kernel.plan.value = writer.result_of(kernel);
    const auto first = task.outputs.size();
    if (is_wanted(kernel)) write(kernel, task, TaskPart::kAfter, writer);
    for (Node* node : group.after.members) emit_operation(*node, group, task, writer);
    // The last handle was dropped during planning.
    if (task.outputs.size() == first) write(kernel, task, TaskPart::kAfter, writer);
    // The kernel writes where one of these results will be, if its elements are as large.
    for (std::size_t i = first; i < task.outputs.size() && task.kernel_output < 0; ++i)
      if (itemsize(task.outputs[i].array.dtype) == itemsize(kernel.dtype)) {
        task.kernel_output = static_cast<int>(i);
        task.outputs[i].part = TaskPart::kKernel;
      }
    return finish_program(writer, task);
  }

  void emit_operation(Node& node, const Group& group, Task& task, ProgramWriter& writer) {
    const DType made = rounds(node) ? node.compute : node.dtype;
    Program::Instruction instruction{node.op->code, node.compute, made, static_cast<std::uint8_t>(node.op->arity), {},
                                     node.source, node.sequence};
    const auto inputs = node.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto type = operand_type(node, i);
      if (!inputs[i]) {
        instruction.in[i] = writer.constant(type, node.scalars[i]);
      } else {
        const Node& in = *inputs[i];
        const auto value = batch_.is_member(&in, group) ? in.plan.value : read(in, task, node.plan.part, writer);
        instruction.in[i] = writer.converted(value, in.dtype, type, node);
      }
    }
    node.plan.value = writer.converted(writer.add(instruction), made, node.dtype, node);
    if (is_wanted(node)) write(node, task, node.plan.part, writer);
  }

  // Reads the value from memory.
  std::uint16_t read(const Node& node, Task& task, TaskPart part, ProgramWriter& writer) {
    if (const auto known = writer.find_input(node)) return *known;
    TaskOperand o = operand(node);
    o.part = part;
    const auto value = writer.input(node, o.array.strides);
    o.replaceable = writer.is_dense(value);
    task.inputs.push_back(std::move(o));
    return value;
  }

  // Writes the value to memory.
  void write(Node& node, Task& task, TaskPart part, ProgramWriter& writer) {
    task.outputs.push_back(result(node, task, part));
    writer.output(node.plan.value, node.dtype);
  }

  const Batch& batch_;
  std::vector<std::unique_ptr<Task>>& tasks_;
  DryPlan* const dry_;
};

}  // namespace

void emit(const Batch& batch, std::span<const GroupId> order, std::vector<std::unique_ptr<Task>>& tasks, DryPlan* dry) {
  Emission emission(batch, tasks, dry);
  for (const GroupId g : order) emission.emit(batch.groups[g]);
}

}  // namespace owl::planner
