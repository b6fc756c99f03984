// One unit of scheduling: a kernel or a fused program, with its operands' memory.
#pragma once

#include <memory>
#include <vector>

#include "graph/op.h"
#include "plan/program.h"

namespace owl {

struct TaskOperand {
  Ref<Storage> storage;
  ArrayRef array;             // data is filled in when the task starts
  std::int64_t offset = 0;    // in elements
  std::shared_ptr<const Failure> failure;  // of this result alone; where unset, the task's counts
};

struct Task {
  Device* device = nullptr;
  const OpRecord* op = nullptr;  // a kernel; null: `program`
  std::unique_ptr<const Params> params;
  std::unique_ptr<Program> program;
  std::vector<TaskOperand> inputs;
  std::vector<TaskOperand> outputs;

  const char* name = "";         // for errors and logs; a fused program is named after its last operation
  Source source;
  std::uint64_t sequence = 0;
  double cost_ns = 0;            // estimate on one thread
  bool traced = false;           // watched for NaN and infinity: takes over no memory, keeps its operands

  // Scheduling, guarded by the scheduler's mutex.
  int unfinished_inputs = 0;
  std::vector<Task*> successors;
  bool bound = false;            // its inputs' addresses are filled in
  bool started = false;
  int threads = 0;                       // inside it now
  Task *older = nullptr, *newer = nullptr;  // the scheduler's list of all tasks in flight
  Launch launch;
  std::size_t stage = 0;
  std::int64_t next_chunk = 0, done_chunks = 0;
  std::shared_ptr<const Failure> failure;
};

}  // namespace owl
