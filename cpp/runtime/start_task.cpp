// Starting a task: its operands' and results' memory, and the backend's launch.
#include <algorithm>
#include <cassert>
#include <optional>

#include "base/counters.h"
#include "base/env.h"
#include "runtime/faults.h"
#include "runtime/profile.h"
#include "runtime/scheduler.h"

namespace owl {

namespace {

void inject_fault(const Task& task) {
  if (Faults::due(faults().op)) throw Error(std::string(task.name) + ": injected fault (OWL_FAULT)");
}

bool has_failed(const TaskOperand& in) { return in.storage->failed(); }
bool is_lost(const TaskOperand& in) { return has_failed(in) && !in.storage->token; }

// The result may take over the operand's memory if no handle and no other task can read it.
bool can_take_over(const Task& task, const TaskOperand& from, const TaskOperand& to) {
  return may_take_over(task, from, to) && !from.storage->foreign_release && from.storage->data &&
         from.storage->refs() == 1;
}

bool take_over_operand(const Task& task, std::span<TaskOperand> operands, TaskOperand& out) {
  const auto from = std::ranges::find_if(operands, [&](auto& in) { return can_take_over(task, in, out); });
  if (from == operands.end()) return false;
  out.storage->device->allocator.move(*from->storage, *out.storage);
  out.array.data = out.storage->data;
  count(counters.in_place);
  return true;
}

// Whether a handle, or a waiting task, needs one of the results.
bool is_wanted(std::span<const TaskOperand> results) {
  return std::ranges::any_of(results, [](auto& out) { return !out.failure && out.storage->refs() > 1; });
}

// `failed`: some operands have failed, but the task still computes the results that do not need them.
void bind_operands(Task& task, bool failed) {
  for (auto& in : task.inputs) {
    const Storage& storage = *in.storage;
    assert(storage.ready() || storage.failed());
    void* data = storage.data;
    if (failed && !data && is_lost(in) && task.device->backend->computes())  // only failed results read it
      task.device->backend->clear(data = task.launch.scratch(storage.bytes), storage.bytes);
    in.array.data = static_cast<std::byte*>(data) + in.byte_offset();
  }
  task.bound = true;
}

bool runs_on_failure(const Task& task) { return task.op && task.op->runs_on_failure; }

void launch(Task& task) {
  std::optional<profile::Span> span;  // on the CPU each chunk has its own span
  if (task.device->backend->is_async()) span.emplace(task);
  task.device->backend->launch(task, task.launch);
  count(counters.kernels);
  if (settings().log_run) log_line("run " + std::string(task.name) + " on device " + std::to_string(task.device->id));
}

// The task does not run, unless that is to tell other processes of its results' failure.
void fail_start(Task& task, const std::shared_ptr<const Failure>& failure) {
  task.launch.stages.clear();
  if (!runs_on_failure(task)) {
    task.failure = failure;
    return;
  }
  for (auto& out : task.outputs)
    if (!out.storage->token) out.failure = failure;
  launch(task);
}

}  // namespace

std::shared_ptr<const Failure> Scheduler::caught(const Task& task, const Storage* result) {
  return failure_of(std::current_exception(), result ? result->op : task.name, result ? result->source : task.source,
                    task.sequence);
}

bool Scheduler::start_task(Task& task, bool last_resort) {
  const bool has_memory = bind_and_launch(task, last_resort);
  if (task.reserved > 0 || last_resort) place(task, has_memory);
  return has_memory;
}

// False: there is no memory for the result now.
bool Scheduler::bind_result(Task& task, std::span<TaskOperand> operands, TaskOperand& out, bool last_resort) {
  if (!take_over_operand(task, operands, out) && task.device->backend->computes()) {
    const bool injected = Faults::due(faults().alloc);
    if (injected || !take_for_result(*out.storage, task.op && (task.op->copies_in || task.op->joins_devices))) {
      if (!injected && !last_resort) return false;
      refuse_memory(*out.storage, injected);
    }
    out.array.data = out.storage->data;
  }
  count(counters.buffers_written);
  count(counters.bytes_written, static_cast<std::int64_t>(out.storage->bytes));
  return true;
}

// `wants_memory`: the result that asked for memory last.
bool Scheduler::bind_results(Task& task, std::span<TaskOperand> operands, std::span<TaskOperand> results,
                             bool last_resort, const Storage*& wants_memory) {
  for (auto& out : results) {
    if (out.array.data) continue;  // from an earlier try
    wants_memory = out.storage.get();
    if (!bind_result(task, operands, out, last_resort)) return false;
  }
  return true;
}

// A segment does not run, and its results have no memory, if no handle or task needs them or one of them gets no
// memory.
bool Scheduler::bind_segments(Task& task, bool last_resort) {
  for (std::size_t s = 0; s < task.segments.size(); ++s) {
    const auto [program, operands, results] = segment(task, s);
    const bool tried = results.front().array.data != nullptr;
    if (!tried && !is_wanted(results)) continue;
    const Storage* wants_memory = nullptr;
    try {
      if (!bind_results(task, operands, results, last_resort, wants_memory)) return false;
    } catch (...) {
      const auto failure = caught(task, wants_memory);
      for (auto& out : results) {
        out.failure = failure;
        out.array.data = nullptr;
      }
    }
  }
  return true;
}

// Binds memory and asks the backend for stages; an exception becomes the task's failure.
bool Scheduler::bind_and_launch(Task& task, bool last_resort) {
  const Storage* wants_memory = nullptr;
  task.started = true;
  task.launch.device = task.device;
  task.launch.task = &task;
  try {
    task.device->require_own_process();
    const bool failed = std::ranges::any_of(task.inputs, has_failed);
    if (failed && !spread_failures(task) && !runs_on_failure(task)) return true;
    const bool has_effect = task.op && task.op->effect;
    if (task.given_up || (!has_effect && !is_wanted(task.outputs))) {
      count(counters.tasks_skipped);
      return true;
    }
    if (!task.bound) {  // in an earlier try a result may have taken over an operand's memory
      inject_fault(task);
      bind_operands(task, failed);
    }
    const bool has_memory = task.segments.empty()
                                ? bind_results(task, task.inputs, task.outputs, last_resort, wants_memory)
                                : bind_segments(task, last_resort);
    if (!has_memory) {
      task.started = false;
      return false;
    }
    wants_memory = nullptr;
    launch(task);
  } catch (...) {
    fail_start(task, caught(task, wants_memory));
  }
  return true;
}

}  // namespace owl
