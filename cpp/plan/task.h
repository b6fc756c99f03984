// One unit of scheduling: a kernel, a fused program, or a kernel between two programs, with the operands' memory.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/recycled.h"
#include "device/launch.h"
#include "graph/op.h"
#include "plan/program.h"
#include "plan/strips.h"

namespace owl {

struct TaskOperand {
  Ref<Storage> storage;
  ArrayRef array;             // data is filled in when the task starts
  std::int64_t offset = 0;    // in elements
  TaskPart part = TaskPart::kKernel;  // which reads it; of a result: which writes its memory first
  bool replaceable = false;   // a result of the same part may take over its memory, if no other task reads it
  std::shared_ptr<const Failure> failure;  // of this result alone; where unset, the task's counts

  std::size_t byte_offset() const { return static_cast<std::size_t>(offset) * itemsize(array.dtype); }
};

struct Task : Recycled<Task> {
  // One of several equal programs, each over arrays of its own, that run as one task: `before`, with its share of the
  // task's operands and results, which ends there.
  struct Segment {
    std::shared_ptr<const Program> program;
    std::size_t inputs_end, outputs_end;
  };

  Device* device = nullptr;
  // Without a kernel `before` is the whole task. With one it computes the kernel's operand 0, as its last output, and
  // `after` works on the kernel's result, its input 0: both range by range, where the kernel reads and writes.
  std::shared_ptr<const Program> before;
  std::vector<Segment> segments;  // instead of `before`, of a task without a kernel
  std::shared_ptr<const Strips> strips;  // instead of all parts: several kernels and programs
  const OpRecord* op = nullptr;
  std::shared_ptr<const Params> params;
  std::shared_ptr<const Program> after;
  RecycledVector<TaskOperand> inputs;   // in memory: of `before`, of the kernel, of `after`
  RecycledVector<TaskOperand> outputs;  // likewise
  int kernel_output = -1;        // in whose memory the kernel writes its result; -1: in scratch memory
  std::vector<int> kernel_outputs;  // instead, of an operation with several results: which outputs they are; -1: not needed

  const char* name = "";         // for errors and logs: the kernel's, or that of the program's last operation
  Source source;
  std::uint64_t sequence = 0;
  double cost_ns = 0;            // estimate on one thread
  std::uint64_t alike_key = 0;   // of a program alone (plan/batch_alike.h)
  bool traced = false;           // watched for NaN and infinity: takes over no memory, keeps its operands

  // Scheduling, guarded by the scheduler's mutex.
  int unfinished_inputs = 0;
  std::vector<Task*> successors;
  std::shared_ptr<int> batch;    // how many tasks of its batch are left, on an asynchronous device
  bool bound = false;            // its inputs' addresses are filled in
  bool started = false;
  bool given_up = false;         // its results are dropped: it has no operands any more and is skipped
  bool pinned = false;           // until it is submitted: its operands are read without the lock, so it is not given up
  std::uint64_t order = 0;       // in which tasks were submitted: that of recording, operands first
  // Memory under a limit (memory_wait.cpp). `scratch`: scratch memory of its launch, if known.
  std::optional<std::size_t> scratch;
  std::size_t reserved = 0;      // while it starts: of what it needs
  bool placed = false;           // it has started and holds what it needs
  bool last_resort = false;      // nothing runs that could free memory: it must use what is free
  int threads = 0;                       // threads inside it
  Task *older = nullptr, *newer = nullptr;  // the scheduler's list of all tasks in flight
  Launch launch;
  std::size_t stage = 0;
  int helpers = 0;                       // workers that take chunks of the stage
  std::atomic<std::int64_t> next_chunk{0};  // of the stage; taken without the lock
  std::shared_ptr<const Failure> failure;
};

using TaskList = RecycledVector<Task*>;
using Tasks = RecycledVector<std::unique_ptr<Task>>;

// A segment of a task, with its operands and results. A task that has none is one as a whole.
struct SegmentView {
  const Program* program;  // null: the task has a kernel alone
  std::span<TaskOperand> inputs, outputs;
};
inline std::size_t segment_count(const Task& task) { return std::max<std::size_t>(1, task.segments.size()); }
inline SegmentView segment(Task& task, std::size_t i) {
  const std::span<TaskOperand> in(task.inputs), out(task.outputs);
  if (task.segments.empty()) return {task.before.get(), in, out};
  const auto& [program, in_end, out_end] = task.segments[i];
  const auto in_begin = i ? task.segments[i - 1].inputs_end : 0, out_begin = i ? task.segments[i - 1].outputs_end : 0;
  return {program.get(), in.subspan(in_begin, in_end - in_begin), out.subspan(out_begin, out_end - out_begin)};
}

// A task's operands and results by the part that reads or writes them, which is the order in which they lie. Those of
// the program before and behind a kernel that have no memory, its operand and its result, are not among them.
struct TaskSides {
  std::span<const TaskOperand> before_inputs{}, kernel_inputs{}, after_inputs{};
  std::span<const TaskOperand> before_outputs{}, outputs{};  // the latter: of the program behind, or the kernel's result
};
inline TaskSides sides_of(const Task& task) {
  const std::span<const TaskOperand> in(task.inputs), out(task.outputs);
  if (!task.op) return {.before_inputs = in, .before_outputs = out};
  const std::size_t read = task.before ? task.before->inputs.size() : 0;
  const std::size_t written = task.before ? task.before->outputs.size() - 1 : 0;
  const std::size_t behind = in.size() - (task.after ? task.after->inputs.size() - 1 : 0);
  return {.before_inputs = in.first(read), .kernel_inputs = in.subspan(read, behind - read),
          .after_inputs = in.subspan(behind), .before_outputs = out.first(written), .outputs = out.subspan(written)};
}

template <class P> Addresses<P> addresses_of(std::span<const TaskOperand> operands) {
  Addresses<P> all;
  all.reserve(operands.size() + 1);  // a kernel's own operand or result may come beside them
  for (const auto& operand : operands) all.push_back(operand.array.data);
  return all;
}

// What stands for the task where it is shown: the last result that is no token.
inline const ArrayRef& shown_result(const Task& task) {
  const bool effect = task.op && task.op->effect;
  return task.outputs[task.outputs.size() - (effect ? 2 : 1)].array;
}

// Gives each result the failure of the operands that it is computed from, if any. Whether a result is free of them. A
// token passes on a failure that no wait has raised yet, and keeps nothing from being computed.
bool spread_failures(Task& task);

// Whether the result may have the operand's memory once nothing else reads it.
inline bool may_take_over(const Task& task, const TaskOperand& from, const TaskOperand& to) {
  return !task.traced && from.replaceable && from.part == to.part && from.array.dense && from.offset == 0 &&
         from.array.channels_last == to.array.channels_last &&
         from.storage->bytes == to.storage->bytes && itemsize(from.array.dtype) == itemsize(to.array.dtype) &&
         from.storage->device == to.storage->device;
}

}  // namespace owl
