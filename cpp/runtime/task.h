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

  // Scheduling, guarded by the scheduler's mutex.
  int unfinished_inputs = 0;
  std::vector<Task*> successors;
  bool started = false;
  Launch launch;
  std::size_t stage = 0;
  std::int64_t next_chunk = 0, done_chunks = 0;
  std::shared_ptr<const Failure> failure;
};

}  // namespace owl
