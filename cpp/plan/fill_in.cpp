#include "plan/fill_in.h"

#include <string>
#include <utility>

#include "base/counters.h"
#include "base/env.h"
#include "device/device.h"
#include "graph/op.h"
#include "plan/batch.h"

namespace owl::planner {

namespace {

void log_plan(const Task& task, std::size_t fused) {
  const auto operations = std::to_string(fused) + (fused == 1 ? " operation" : " operations");
  const auto shape = shown_result(task).shape.str();
  if (task.strips)
    return log_line("plan strips of " + std::to_string(task.strips->strip) + " images, " +
                    std::to_string(task.strips->members.size()) + " tasks, " + shape);
  if (task.op)
    return log_line("plan kernel " + std::string(task.name) + " " + shape + (fused ? " with " + operations : ""));
  log_line("plan program of " + operations + " over " + shape + ", " + std::to_string(task.inputs.size()) +
           " inputs, " + std::to_string(task.outputs.size()) + " outputs");
}

bool is_copy(const TaskPlan& plan) { return !plan.outputs.front().value; }

class Filling {
 public:
  Filling(std::span<Node* const> nodes, Tasks& tasks, DryPlan* dry)
      : nodes_(nodes), tasks_(tasks), first_(tasks.size()), dry_(dry) {}

  void add(TaskPlan& plan) {
    Node& shown = *nodes_[plan.shown];
    auto task = std::make_unique<Task>();
    task->pinned = true;
    task->device = plan.device;
    task->name = plan.name;
    task->source = shown.source;
    task->sequence = shown.sequence;
    task->traced = plan.traced;
    task->cost_ns = plan.cost_ns;
    task->alike_key = plan.alike_key;
    const bool with_origins = dry_ || plan.traced;
    if (plan.before) task->before = program(*plan.before, with_origins);
    if (plan.after) task->after = program(*plan.after, with_origins);
    task->inputs.reserve(plan.inputs.size());
    for (const auto& in : plan.inputs) task->inputs.push_back(operand(in));
    task->outputs.reserve(plan.outputs.size());
    for (const auto& out : plan.outputs) task->outputs.push_back(result(out, *task));
    if (plan.has_kernel) add_kernel(plan, shown, *task);
    for (auto& strips : plan.strips) task->strips = strips_of(strips, with_origins);
    if (!dry_) note(plan, *task);
    tasks_.push_back(std::move(task));
    if (dry_) note_task_of(plan);
  }

 private:
  const Scalar& number(const ProgramPlan::Number& of) const { return nodes_[of.reader]->scalars[of.operand]; }

  bool is_filled(const ProgramPlan& plan) const {
    if (!plan.filled) return false;
    for (std::size_t i = 0; i < plan.numbers.size(); ++i) {
      const auto& constant = plan.filled->constants[i];
      if (!is_same_number({{}, constant.value, constant.integer}, number(plan.numbers[i]))) return false;
    }
    return true;
  }

  // Only who shows a program or looks for the origin of a NaN asks where its instructions were recorded. Without that
  // the same numbers make the same program, which the batches share.
  std::shared_ptr<const Program> program(ProgramPlan& plan, bool with_origins) const {
    if (!with_origins && is_filled(plan)) return plan.filled;
    auto program = std::make_shared<Program>(plan.program);
    for (std::size_t i = 0; i < plan.numbers.size(); ++i) {
      program->constants[i].value = number(plan.numbers[i]).value;
      program->constants[i].integer = number(plan.numbers[i]).integer;
    }
    if (!with_origins) return plan.filled = std::move(program);
    for (std::size_t i = 0; i < plan.operations.size(); ++i) {
      const Node& operation = *nodes_[plan.operations[i]];
      program->instructions[i].source = operation.source;
      program->instructions[i].sequence = operation.sequence;
    }
    return program;
  }

  Storage* storage_of(const Node& node) const {
    if (dry_)
      if (const auto found = dry_->storages.find(DryPlan::value_of(node)); found != dry_->storages.end())
        return found->second.get();
    return node.storage();
  }

  TaskOperand operand(const OperandPlan& plan) const {
    const Node& node = *nodes_[plan.reader]->inputs()[plan.operand];
    TaskOperand o;
    o.array = plan.array;
    o.part = plan.part;
    o.replaceable = plan.replaceable;
    if (plan.copy) {
      o.storage = tasks_[first_ + *plan.copy]->outputs.front().storage;
    } else {
      o.storage = Ref<Storage>::borrow(storage_of(node));
      o.offset = node.offset;
    }
    return o;
  }

  TaskOperand result(const ResultPlan& plan, Task& task) {
    Node& maker = *nodes_[plan.maker];
    const char* const name = plan.value ? maker.op->name : task.name;
    auto storage = Storage::create(*plan.device, plan.array.shape, plan.array.dtype, name, maker.source);
    storage->producer = &task;
    storage->token = plan.token;
    if (plan.value) note_value(maker, plan.result, storage);
    TaskOperand o;
    o.storage = std::move(storage);
    o.array = plan.array;
    o.part = plan.part;
    return o;
  }

  void note_value(Node& maker, std::uint16_t result, const Ref<Storage>& storage) {
    if (dry_) dry_->storages[{&maker, result}] = storage;
    else if (maker.results) maker.results[result].storage = storage;
    else maker.set_storage(storage);
  }

  // A planned node releases them, like its operands; what has none keeps them, so that a tape can draw it again.
  std::shared_ptr<const Params> params_of(Node& node) const {
    return dry_ || node.op->arity == 0 ? node.params : std::move(node.params);
  }

  void add_kernel(const TaskPlan& plan, Node& node, Task& task) const {
    task.op = node.op;
    task.kernel_output = plan.kernel_output;
    task.kernel_outputs = plan.kernel_outputs;
    task.params = params_of(node);
    if (node.results && !dry_) node.set_storage({});  // its results have theirs
  }

  std::shared_ptr<const Strips> strips_of(StripsPlan& plan, bool with_origins) const {
    auto strips = std::make_shared<Strips>(Strips{.images = plan.images, .strip = plan.strip, .bytes = plan.bytes});
    for (auto& [task, inputs, outputs] : plan.members) {
      auto& member = strips->members.emplace_back();
      if (task.has_kernel) {
        Node& node = *nodes_[task.shown];
        member.op = node.op;
        member.source = node.source;
        member.kernel_output = task.kernel_output;
        member.params = params_of(node);
      }
      if (task.before) member.before = program(*task.before, with_origins);
      if (task.after) member.after = program(*task.after, with_origins);
      for (std::size_t i = 0; i < inputs.size(); ++i) member.inputs.push_back({task.inputs[i].array, inputs[i]});
      for (std::size_t i = 0; i < outputs.size(); ++i) member.outputs.push_back({task.outputs[i].array, outputs[i]});
    }
    return strips;
  }

  void note(const TaskPlan& plan, const Task& task) const {
    if (is_copy(plan)) return count(counters.copies);
    count(counters.fused_operations, static_cast<std::int64_t>(plan.fused));
    if (settings().log_plan) log_plan(task, plan.fused);
  }

  void note_task_of(const TaskPlan& plan) {
    if (is_copy(plan)) return;
    const auto task = tasks_.size() - 1;
    note_operations_of(plan, task);
    for (const auto& strips : plan.strips)
      for (const auto& member : strips.members) note_operations_of(member.task, task);
  }
  void note_operations_of(const TaskPlan& plan, std::size_t task) const {
    for (const auto* part : {&plan.before, &plan.after})
      if (*part)
        for (const Position operation : (*part)->operations) dry_->task_of[nodes_[operation]] = task;
    dry_->task_of[nodes_[plan.shown]] = task;
  }

  const std::span<Node* const> nodes_;
  Tasks& tasks_;
  const std::size_t first_;  // of the plan's tasks
  DryPlan* const dry_;
};

}  // namespace

void fill_in(BatchPlan& plan, std::span<Node* const> nodes, Tasks& tasks, DryPlan* dry) {
  Filling filling(nodes, tasks, dry);
  for (auto& task : plan) filling.add(task);
}

}  // namespace owl::planner
