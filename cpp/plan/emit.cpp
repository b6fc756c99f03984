// Emission: a group becomes a task of up to three parts, the program before its kernel, the kernel, the program after
// it. Only what a handle or another group reads is written to memory.
#include "plan/emit.h"

#include <utility>

#include "graph/record.h"
#include "plan/batch_alike.h"
#include "plan/program_writer.h"

namespace owl::planner {

namespace {

void lay_channels_last(ArrayRef& array) {
  array.strides = channels_last_strides(array.shape);
  array.channels_last = true;
}

ArrayRef dense_array(const Shape& shape, DType dtype) { return {nullptr, shape, shape.dense_strides(), dtype, true}; }

Results results_of(const Node& node) {
  const auto inputs = node.inputs();
  if (!node.op->effect) return node.op->infer(inputs, node.params.get());
  return with_token(node.op->infer(inputs.first(inputs.size() - 1), node.params.get()));
}

// The task, so far without parts, of a group with this kernel or last operation.
TaskPlan new_task(const Node& node) {
  return {.device = node.device, .name = node.op->name, .shown = position_of(node), .traced = node.traced};
}

ProgramPlan finish_program(ProgramWriter& writer, TaskPlan& task) {
  auto plan = writer.finish();
  task.cost_ns += task.device->backend->program_cost_ns(plan.program);
  return plan;
}

class Emission {
 public:
  Emission(const Batch& batch, BatchPlan& tasks) : batch_(batch), tasks_(tasks) {}

  void emit(const Group& group) {
    auto task = new_task(group.kernel ? *group.kernel : *group.before.members.back());
    task.inputs.reserve(static_cast<std::size_t>(group.before.load.inputs + group.after.load.inputs) +
                        (group.kernel ? group.kernel->inputs().size() : 0));
    task.fused = group.before.members.size() + group.after.members.size();
    if (!group.before.members.empty()) task.before = emit_before(group, task);
    if (group.kernel) emit_kernel(group, task);
    if (!group.after.members.empty()) task.after = emit_after(group, task);
    if (!group.kernel) task.alike_key = alike_key(*task.device, task.before->program);
    if (!task.outputs.empty()) tasks_.push_back(std::move(task));  // otherwise the last handle is gone
  }

 private:
  // --- operands and results

  OperandPlan operand(const Node& reader, std::size_t i, TaskPart part) const {
    const Node& node = *reader.inputs()[i];
    OperandPlan o{.reader = position_of(reader), .operand = static_cast<std::uint16_t>(i),
                  .array = {nullptr, node.shape, strides_of(node), node.dtype, node.strides == nullptr}, .part = part};
    if (batch_.is_channels_last(node)) lay_channels_last(o.array);
    return o;
  }

  ResultPlan result(const Node& node, TaskPart part) const {
    ResultPlan r{.maker = position_of(node), .device = node.device, .array = dense_array(node.shape, node.dtype),
                 .part = part};
    if (batch_.is_channels_last(node)) lay_channels_last(r.array);
    return r;
  }

  // --- the kernel

  // The kernel's operands, and its result where no program behind it has it first.
  void emit_kernel(const Group& group, TaskPlan& task) {
    const Node& node = *group.kernel;
    const KernelTraits& traits = traits_of(node);
    task.has_kernel = true;
    const auto inputs = node.inputs();
    for (std::size_t i = task.before ? 1 : 0; i < inputs.size(); ++i) {
      const Node& in = *inputs[i];
      const bool readable = !in.strides || (traits.accepts_strided &&
                                            traits.accepts_strided(in.shape, *in.strides, static_cast<int>(i)));
      task.inputs.push_back(readable ? operand(node, i, TaskPart::kKernel) : dense_copy(node, i));
      task.inputs.back().replaceable = traits.in_place == static_cast<int>(i);
    }
    if (node.results) {
      emit_results(node, task);
    } else if (group.after.members.empty()) {
      task.kernel_output = static_cast<int>(task.outputs.size());
      task.outputs.push_back(result(node, TaskPart::kKernel));
    }
    task.cost_ns += group.kernel_ns;
  }

  // Of several results those for which a node stands; an effect's all.
  void emit_results(const Node& node, TaskPlan& task) {
    const Results types = results_of(node);
    for (std::uint16_t i = 0; i < node.result_count; ++i) {
      const bool wanted = node.op->effect || node.results[i].wanted;
      task.kernel_outputs.push_back(wanted ? static_cast<int>(task.outputs.size()) : -1);
      if (!wanted) continue;
      const auto& [shape, dtype, device] = types[i];
      task.outputs.push_back({.maker = position_of(node), .result = i,
                              .token = node.op->effect && i + 1 == node.result_count,
                              .device = device ? device : node.device, .array = dense_array(shape, dtype),
                              .part = TaskPart::kKernel});
    }
  }

  // A task of its own makes the elements of the reader's operand, a view, dense.
  OperandPlan dense_copy(const Node& reader, std::size_t i) {
    const Node& view = *reader.inputs()[i];
    TaskPlan task{.device = view.device, .name = "copy", .shown = position_of(reader)};
    ProgramPlan& copy = task.before.emplace();
    copy.program.shape = view.shape;
    copy.program.inputs.push_back({view.dtype, *view.strides, false});
    copy.program.outputs.push_back({0, view.dtype});
    task.inputs.push_back(operand(reader, i, TaskPart::kBefore));
    const ArrayRef array = dense_array(view.shape, view.dtype);
    task.outputs.push_back({.maker = position_of(reader), .value = false, .device = view.device, .array = array,
                            .part = TaskPart::kBefore});
    task.cost_ns = task.device->backend->program_cost_ns(copy.program);
    tasks_.push_back(std::move(task));
    return {.reader = position_of(reader), .operand = static_cast<std::uint16_t>(i), .copy = tasks_.size() - 1,
            .array = array, .part = TaskPart::kKernel};
  }

  // --- programs

  // Elementwise operations alone, or in front of the kernel, whose operand is the program's last output.
  ProgramPlan emit_before(const Group& group, TaskPlan& task) {
    ProgramWriter writer(group.before.members.front()->shape, group.before.load, group.channels_last);
    for (Node* node : group.before.members) emit_operation(*node, group, task, writer);
    if (group.kernel) {
      const Node& in = *group.kernel->inputs()[0];
      writer.output(in.plan.value, in.dtype);
    }
    return finish_program(writer, task);
  }

  // Elementwise operations on the kernel's result, the program's input 0.
  ProgramPlan emit_after(const Group& group, TaskPlan& task) {
    Node& kernel = *group.kernel;
    ProgramWriter writer(kernel.shape, group.after.load, group.channels_last);
    kernel.plan.value = writer.result_of(kernel);
    const auto first = task.outputs.size();
    if (is_wanted(kernel)) write(kernel, task, TaskPart::kAfter, writer);
    for (Node* node : group.after.members) emit_operation(*node, group, task, writer);
    if (task.outputs.size() == first) write(kernel, task, TaskPart::kAfter, writer);  // the last handle is gone
    // The kernel writes where one of these results will be, if its elements are as large.
    for (std::size_t i = first; i < task.outputs.size() && task.kernel_output < 0; ++i)
      if (itemsize(task.outputs[i].array.dtype) == itemsize(kernel.dtype)) {
        task.kernel_output = static_cast<int>(i);
        task.outputs[i].part = TaskPart::kKernel;
      }
    return finish_program(writer, task);
  }

  void emit_operation(Node& node, const Group& group, TaskPlan& task, ProgramWriter& writer) {
    const DType made = rounds(node) ? node.compute : node.dtype;
    Program::Instruction instruction{node.op->code, node.compute, made, static_cast<std::uint8_t>(node.op->arity), {}};
    const auto inputs = node.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const auto type = operand_type(node, i);
      if (!inputs[i]) {
        instruction.in[i] = writer.constant(type, node, i);
      } else {
        const Node& in = *inputs[i];
        const auto value = batch_.is_member(&in, group) ? in.plan.value : read(node, i, task, writer);
        instruction.in[i] = writer.converted(value, in.dtype, type, node);
      }
    }
    node.plan.value = writer.converted(writer.add(instruction, node), made, node.dtype, node);
    if (is_wanted(node)) write(node, task, node.plan.part, writer);
  }

  // Reads the reader's operand from memory.
  std::uint16_t read(const Node& reader, std::size_t i, TaskPlan& task, ProgramWriter& writer) {
    const Node& node = *reader.inputs()[i];
    if (const auto known = writer.find_input(node)) return *known;
    OperandPlan o = operand(reader, i, reader.plan.part);
    const auto value = writer.input(node, o.array.strides);
    o.replaceable = writer.is_dense(value);
    task.inputs.push_back(o);
    return value;
  }

  // Writes the value to memory.
  void write(const Node& node, TaskPlan& task, TaskPart part, ProgramWriter& writer) {
    task.outputs.push_back(result(node, part));
    writer.output(node.plan.value, node.dtype);
  }

  const Batch& batch_;
  BatchPlan& tasks_;
};

}  // namespace

BatchPlan emit(const Batch& batch, std::span<const GroupId> order) {
  BatchPlan tasks;
  tasks.reserve(order.size());
  Emission emission(batch, tasks);
  for (const GroupId g : order) emission.emit(batch.groups[g]);
  return tasks;
}

}  // namespace owl::planner
