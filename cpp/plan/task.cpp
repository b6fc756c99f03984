#include "plan/task.h"

#include <algorithm>

namespace owl {

namespace {

using Cause = std::shared_ptr<const Failure>;

const Cause& earlier(const Cause& a, const Cause& b) { return !a || (b && b->sequence < a->sequence) ? b : a; }

// A failure that a wait has raised is not passed on.
Cause passed_on(const TaskOperand& token) {
  const Cause cause = token.storage->failed() ? token.storage->failure : nullptr;
  return cause && !cause->raised ? cause : nullptr;
}

// The causes of failure of the program's outputs, given those of its inputs.
std::vector<Cause> outputs_of(const Program& program, std::vector<Cause> values) {
  values.resize(program.inputs.size() + program.constants.size());
  for (const auto& instruction : program.instructions) {
    Cause cause;
    for (int i = 0; i < instruction.arity; ++i) cause = earlier(cause, values[instruction.in[i]]);
    values.push_back(std::move(cause));
  }
  std::vector<Cause> outputs;
  for (const auto& out : program.outputs) outputs.push_back(values[out.value]);
  return outputs;
}

Cause cause_of(const TaskOperand& in) {
  return in.storage->state.load(std::memory_order_acquire) == Storage::State::kFailed ? in.storage->failure : nullptr;
}

// Of a program alone.
bool spread_failures(const SegmentView& segment) {
  std::vector<Cause> causes;
  for (const auto& in : segment.inputs) causes.push_back(cause_of(in));
  const auto results = outputs_of(*segment.program, std::move(causes));
  for (std::size_t i = 0; i < results.size(); ++i) segment.outputs[i].failure = results[i];
  return std::ranges::count(results, nullptr) > 0;
}

// Of what a kernel and the programs around it make, by the causes of their operands.
std::vector<Cause> results_of(const Program* before, std::vector<Cause> of_before, const std::vector<Cause>& of_kernel,
                              const Program* after, std::vector<Cause> of_after, std::size_t kernel_results) {
  std::vector<Cause> results;
  Cause cause;  // of the kernel's result
  if (before) {
    results = outputs_of(*before, std::move(of_before));
    cause = results.back();  // the kernel's operand
    results.pop_back();
  }
  for (const auto& each : of_kernel) cause = earlier(cause, each);
  if (after) {
    of_after.insert(of_after.begin(), cause);
    for (auto& each : outputs_of(*after, std::move(of_after))) results.push_back(std::move(each));
  } else {
    results.resize(results.size() + kernel_results, cause);
  }
  return results;
}

// Of a task in strips, member by member.
bool spread_failures(const Strips& strips, Task& task) {
  std::vector<Cause> operands, results(task.outputs.size()), in_strips(strips.bytes.size());
  for (const auto& in : task.inputs) operands.push_back(cause_of(in));
  const auto at = [&](const StripPlace& place) -> Cause& {
    auto& all = place.in == StripPlace::In::kOperand ? operands : place.in == StripPlace::In::kResult ? results : in_strips;
    return all[place.index];
  };
  const auto causes_of = [&](std::span<const Strips::Array> arrays) {
    std::vector<Cause> causes;
    for (const auto& array : arrays) causes.push_back(at(array.place));
    return causes;
  };
  for (const auto& member : strips.members) {
    const auto sides = Strips::sides_of(member);
    const auto made = member.op ? results_of(member.before.get(), causes_of(sides.before_inputs),
                                             causes_of(sides.kernel_inputs), member.after.get(),
                                             causes_of(sides.after_inputs), sides.outputs.size())
                                : outputs_of(*member.before, causes_of(sides.before_inputs));
    for (std::size_t i = 0; i < made.size(); ++i) at(member.outputs[i].place) = made[i];
  }
  for (std::size_t i = 0; i < results.size(); ++i) task.outputs[i].failure = results[i];
  return std::ranges::count(results, nullptr) > 0;
}

}  // namespace

bool spread_failures(Task& task) {
  if (task.strips) return spread_failures(*task.strips, task);
  if (!task.op) {
    bool free = false;
    for (std::size_t s = 0; s < segment_count(task); ++s) free |= spread_failures(segment(task, s));
    return free;
  }
  std::vector<Cause> of_part[3];  // of the inputs, by the part that reads them
  Cause earlier_effect;
  for (const auto& in : task.inputs) {
    if (in.storage->token) earlier_effect = passed_on(in);
    else of_part[static_cast<int>(in.part)].push_back(cause_of(in));
  }
  auto& [before, kernel, after] = of_part;
  const auto written = task.before ? task.before->outputs.size() - 1 : 0;
  const auto results = results_of(task.before.get(), std::move(before), kernel, task.after.get(), std::move(after),
                                  task.outputs.size() - (task.after ? 0 : written));
  bool free = false;
  for (std::size_t i = 0; i < results.size(); ++i) {
    free |= !results[i];
    task.outputs[i].failure = task.outputs[i].storage->token && earlier_effect ? earlier_effect : results[i];
  }
  return free;
}

}  // namespace owl
