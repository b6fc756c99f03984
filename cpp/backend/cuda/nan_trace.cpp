// Detecting NaN and infinity (owl::trace_nan): the task is run again on the host.
#include <vector>

#include "backend/cpu/nan_watch.h"
#include "backend/cpu/run_program.h"
#include "backend/cuda/backend.h"
#include "graph/sink.h"

namespace owl::cuda {

namespace {

// A copy of the task in host memory.
struct Shadow {
  Task task;
  Task& original;
  std::vector<std::vector<std::byte>> memory;

  Shadow(Backend& backend, Task& task) : original(task) {
    const auto bring = [&](const TaskOperand& from, std::size_t begin, std::size_t bytes) {
      auto& host = memory.emplace_back(bytes);  // zeros, which replace an operand that failed
      if (from.storage->data) backend.download(host.data(), *from.storage, begin, bytes);
      return host.data();
    };
    for (const auto& in : task.inputs) {
      TaskOperand& copy = this->task.inputs.emplace_back(in);
      copy.array.data = bring(in, 0, in.storage->bytes) + (task.op ? 0 : in.byte_offset());
      if (!task.op || in.array.dense) continue;
      copy.array.shape = Shape{static_cast<std::int64_t>(in.storage->bytes / itemsize(in.array.dtype))};
      copy.array.dense = true;  // a kernel's operand is checked as a whole
    }
    for (const auto& out : task.outputs) {
      TaskOperand& copy = this->task.outputs.emplace_back(out);
      copy.array.data = bring(out, 0, out.storage->bytes);
    }
    this->task.op = task.op;
    this->task.name = task.name;
    this->task.source = task.source;
    this->task.params = task.params;
  }
};

void run_on_host(Launch& launch) {
  for (const auto& stage : launch.stages)
    for (std::int64_t chunk = 0; chunk < stage.chunks; ++chunk) stage.body(chunk);
  for (auto& [data, bytes] : launch.scratch_blocks) launch.device->allocator.free(data, bytes);
}

}  // namespace

// The CPU's interpreter runs a program again, instruction by instruction, with the same bits. Of a kernel, only the
// result is checked.
void Backend::trace(Task& task, Launch& launch) {
  launch.stage(1, [this, &task](std::int64_t) {
    Shadow shadow(*this, task);
    Launch host;
    host.device = &sink().device(0);
    if (task.op) {
      cpu::watch_kernel(shadow.task, host);
      return run_on_host(host);
    }
    cpu::NanWatch watch(*task.before);
    cpu::launch_program(*task.before, addresses_of<const void*>(shadow.task.inputs),
                        addresses_of<void*>(shadow.task.outputs), host, &watch);
    run_on_host(host);
    watch.report(task);
  });
}

}  // namespace owl::cuda
