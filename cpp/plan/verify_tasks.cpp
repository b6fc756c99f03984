// Checks of tasks and their programs.
#include <algorithm>
#include <string>
#include <unordered_map>

#include "plan/verify.h"

namespace owl::planner {

namespace {

std::string text(DType type) { return std::string(name(type)); }
std::string text(const Task& task, std::size_t at) { return "task " + std::to_string(at) + " (" + task.name + ")"; }

// The record of an elementwise operation, by its code; null if no operation has the code.
const OpRecord* record_of(std::uint16_t code) {
  static const auto records = [] {
    std::vector<const OpRecord*> all;
    for (const OpRecord* op : all_ops()) {
      if (op->cls != OpRecord::Class::kElementwise) continue;
      if (all.size() <= op->code) all.resize(op->code + 1u);
      all[op->code] = op;
    }
    return all;
  }();
  return code < records.size() ? records[code] : nullptr;
}

// --- programs

// The types of the program's values numbered so far.
using Types = std::vector<DType>;

void check_instruction(const Program::Instruction& instruction, std::size_t at, const Types& types) {
  const OpRecord* op = record_of(instruction.code);
  const std::string where = "instruction " + std::to_string(at) + (op ? " (" + std::string(op->name) + ")" : "");
  if (!op) broken(where + " has no operation: code " + std::to_string(instruction.code));
  if (instruction.arity != op->arity)
    broken(where + " has " + std::to_string(instruction.arity) + " operands, not " + std::to_string(op->arity));
  for (std::size_t i = 0; i < instruction.arity; ++i) {
    const auto value = instruction.in[i];
    if (value >= types.size()) broken(where + " reads value " + std::to_string(value) + " before it is computed");
    const DType type = op->rule == TypeRule::kSelect && i == 0 ? DType::kBool : instruction.dtype;
    if (types[value] != type)
      broken(where + " reads value " + std::to_string(value) + " as " + text(type) + ", but it is " +
             text(types[value]));
  }
}

// --- a task

// The operands of a task that belong to a part.
std::vector<const TaskOperand*> of_part(std::span<const TaskOperand> operands, TaskPart part) {
  std::vector<const TaskOperand*> some;
  for (const auto& o : operands)
    if (o.part == part) some.push_back(&o);
  return some;
}

void check_count(const std::string& where, const char* what, std::size_t count, std::size_t expected) {
  if (count != expected)
    broken(where + " has " + std::to_string(count) + what + ", not " + std::to_string(expected));
}

// Checks that the program's inputs, from `first` on, are the task's operands of that part.
void check_program_inputs(const Task& task, const Program& program, TaskPart part, std::size_t first,
                          const std::string& where) {
  const auto operands = of_part(task.inputs, part);
  check_count(where, " operands of a program in memory", operands.size(), program.inputs.size() - first);
  for (std::size_t i = 0; i < operands.size(); ++i)
    if (operands[i]->array.dtype != program.inputs[first + i].dtype)
      broken(where + " reads operand " + std::to_string(i) + " of a program as another type than it has");
}

void check_operands(const Task& task, const std::string& where) {
  for (std::size_t i = 1; i < task.inputs.size(); ++i)
    if (task.inputs[i].part < task.inputs[i - 1].part) broken(where + " has its operands in the wrong order");
  if (task.before) check_program_inputs(task, *task.before, TaskPart::kBefore, 0, where);
  if (task.after) check_program_inputs(task, *task.after, TaskPart::kAfter, 1, where);
  const auto kernel = of_part(task.inputs, TaskPart::kKernel).size() + (task.op && task.before ? 1 : 0);
  const bool waits = task.op && task.op->arity == 0 && kernel == 1;  // a random array drawn again, once this is computed
  const bool fixed = !waits && (!task.op || task.op->arity >= 0);
  if (fixed) check_count(where, " kernel operands", kernel, task.op ? static_cast<std::size_t>(task.op->arity) : 0);
}

// Without a program after it the kernel writes a result of its own; with one, a result of the program whose elements
// are as large, or scratch memory.
void check_kernel_output(const Task& task, const std::string& where) {
  if (!task.kernel_outputs.empty()) {
    for (const int at : task.kernel_outputs)
      if (at >= static_cast<int>(task.outputs.size()))
        broken(where + " has its kernel write result " + std::to_string(at) + ", of " +
               std::to_string(task.outputs.size()));
    return;
  }
  if (task.kernel_output < 0) {
    if (task.op && !task.after) broken(where + " has a kernel without a result");
    return;
  }
  const auto at = static_cast<std::size_t>(task.kernel_output);
  if (at >= task.outputs.size() || task.outputs[at].part != TaskPart::kKernel)
    broken(where + " has its kernel write result " + std::to_string(at) + ", which is not the kernel's");
  if (task.after && itemsize(task.outputs[at].array.dtype) != itemsize(task.after->inputs[0].dtype))
    broken(where + " has its kernel write into memory of other elements");
}

void check_results(const Task& task, const std::string& where) {
  std::size_t expected = task.op && !task.after ? 1 : 0;
  if (!task.kernel_outputs.empty())
    expected = static_cast<std::size_t>(std::ranges::count_if(task.kernel_outputs, [](int at) { return at >= 0; }));
  if (task.before) expected += task.before->outputs.size() - (task.op ? 1 : 0);
  if (task.after) expected += task.after->outputs.size();
  check_count(where, " results", task.outputs.size(), expected);
  check_kernel_output(task, where);
}

// A task in strips: each member's arrays lie where its place says, and what it reads in a strip was written there.
void check_strips(const Task& task, const std::string& where) {
  const Strips& strips = *task.strips;
  if (task.op || task.before || task.after || !task.segments.empty()) broken(where + " has strips and parts of its own");
  if (strips.strip < 1 || strips.members.size() < 2) broken(where + " has no strips");
  if (task.outputs.empty()) broken(where + " has no results");
  std::vector<bool> results(task.outputs.size()), values(strips.bytes.size());
  for (const auto& member : strips.members) {
    if (!member.op && (!member.before || member.after)) broken(where + " has a member that is no program and no kernel");
    for (const Program* program : {member.before.get(), member.after.get()})
      if (program) verify_program(*program);
    const auto sides = Strips::sides_of(member);
    const auto kernel = sides.kernel_inputs.size() + (member.op && member.before ? 1 : 0);
    if (!member.op || member.op->arity >= 0)
      check_count(where, " kernel operands of a member", kernel, member.op ? static_cast<std::size_t>(member.op->arity) : 0);
    const std::size_t results_behind = !member.op ? 0 : member.after ? member.after->outputs.size() : 1;
    check_count(where, " results of a member", sides.outputs.size(), results_behind);
    for (const auto& [array, place] : member.inputs) {
      const bool of_strip = place.in == StripPlace::In::kStrip, of_result = place.in == StripPlace::In::kResult;
      if (place.index >= (of_strip ? values.size() : of_result ? results.size() : task.inputs.size()))
        broken(where + " has a member that reads what is not there");
      if ((of_strip && !values[place.index]) || (of_result && !results[place.index]))
        broken(where + " has a member that reads what no member has made");
    }
    for (const auto& [array, place] : member.outputs) {
      if (place.in == StripPlace::In::kOperand) broken(where + " has a member that writes an operand");
      const bool of_strip = place.in == StripPlace::In::kStrip;
      auto& written = of_strip ? values : results;
      if (place.index >= written.size() || written[place.index]) broken(where + " has two members with one result");
      if (of_strip && !place.cut) broken(where + " has a whole value in a strip");
      written[place.index] = true;
    }
  }
  if (!std::ranges::all_of(results, [](bool is) { return is; })) broken(where + " has a result that no member makes");
}

void check_shape_of_task(const Task& task, const std::string& where) {
  if (task.strips) return check_strips(task, where);
  if (!task.op && !task.before) broken(where + " has neither kernel nor program");
  if (task.after && (!task.op || task.after->inputs.empty())) broken(where + " has a program behind no kernel");
  if (task.before && task.before->outputs.empty()) broken(where + " has a program without results");
  if (task.outputs.empty()) broken(where + " has no results");
  for (const Program* program : {task.before.get(), task.after.get()})
    if (program) verify_program(*program);
  check_operands(task, where);
  check_results(task, where);
}

// --- all tasks of a batch

using Makers = std::unordered_map<const Storage*, std::size_t>;  // the task that writes the memory

Makers makers_of(std::span<const std::unique_ptr<Task>> tasks) {
  Makers makers;
  for (std::size_t t = 0; t < tasks.size(); ++t)
    for (const auto& out : tasks[t]->outputs) {
      const std::string where = text(*tasks[t], t);
      if (!out.storage) broken(where + " has a result without memory");
      if (const auto [at, is_new] = makers.emplace(out.storage.get(), t); !is_new)
        broken(where + " writes a result that task " + std::to_string(at->second) + " writes");
      if (out.storage->producer != tasks[t].get()) broken(where + " is not noted as its result's producer");
      if (out.storage->bytes != out.array.nbytes()) broken(where + " has a result of another size than its memory");
    }
  return makers;
}

void check_precedence(const Task& task, std::size_t at, const Makers& makers, const std::string& where) {
  for (const auto& in : task.inputs) {
    if (!in.storage) broken(where + " reads a value that no task computes");
    const auto maker = makers.find(in.storage.get());
    if (maker != makers.end() && maker->second >= at)
      broken(where + " reads a result of task " + std::to_string(maker->second) + ", which does not precede it");
  }
}

// The storage of the node, or of one of its results.
const Storage* storage_of(const Node& node, int result, const DryPlan* dry) {
  if (!dry) return node.storage();
  const auto found = dry->storages.find({&node, result});
  return found == dry->storages.end() ? nullptr : found->second.get();
}

}  // namespace

void verify_program(const Program& program) {
  Types types;
  for (const auto& in : program.inputs) types.push_back(in.dtype);
  for (const auto& constant : program.constants) types.push_back(constant.dtype);
  for (std::size_t i = 0; i < program.instructions.size(); ++i) {
    check_instruction(program.instructions[i], i, types);
    types.push_back(program.instructions[i].result);
  }
  for (const auto& out : program.outputs) {
    if (out.value >= types.size())
      broken("a program's result is value " + std::to_string(out.value) + ", but it has " +
             std::to_string(types.size()) + " values");
    if (types[out.value] != out.dtype)
      broken("a program's result is " + text(out.dtype) + ", but its value is " + text(types[out.value]));
  }
}

void verify_tasks(const Batch& batch, std::span<const std::unique_ptr<Task>> tasks, const DryPlan* dry) {
  const Makers makers = makers_of(tasks);
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    const std::string where = text(*tasks[t], t);
    check_shape_of_task(*tasks[t], where);
    check_precedence(*tasks[t], t, makers, where);
  }
  const bool in_strips = std::ranges::any_of(tasks, [](const auto& task) { return task->strips != nullptr; });
  for (const Node* node : batch.nodes) {
    const auto who = "operation " + std::to_string(node->plan.index) + " (" + node->op->name + ")";
    if (!dry && node->results) continue;  // other threads may let go of them meanwhile
    for (int i = 0; i < node->result_count; ++i) {
      const Storage* storage = storage_of(*node, i, dry);
      bool wanted = node->results ? node->results[i].wanted : is_wanted(*node);
      if (in_strips && !node->results && !node->plan.held) wanted = false;  // it may be a strip's
      if (!storage && wanted) broken(who + " is read from memory, but has none");
      if (storage && !makers.contains(storage)) broken(who + " has memory that no task writes");
    }
  }
}

}  // namespace owl::planner
