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

}  // namespace

bool spread_failures(Task& task) {
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
  std::vector<Cause> results;
  Cause cause;  // of the kernel's result
  if (task.before) {
    results = outputs_of(*task.before, std::move(before));
    cause = results.back();  // the kernel's operand
    results.pop_back();
  }
  for (const auto& each : kernel) cause = earlier(cause, each);
  if (task.after) {
    after.insert(after.begin(), cause);
    for (auto& each : outputs_of(*task.after, std::move(after))) results.push_back(std::move(each));
  } else {
    results.resize(task.outputs.size(), cause);
  }
  bool free = false;
  for (std::size_t i = 0; i < results.size(); ++i) {
    free |= !results[i];
    task.outputs[i].failure = task.outputs[i].storage->token && earlier_effect ? earlier_effect : results[i];
  }
  return free;
}

}  // namespace owl
