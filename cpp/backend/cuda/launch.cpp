// Tasks become commands in the list of the next ticket.
#include <algorithm>
#include <iterator>
#include <utility>

#include "backend/cuda/backend.h"
#include "backend/cuda/emit.h"
#include "backend/cuda/kernels.h"
#include "base/env.h"
#include "owl/error.h"

namespace owl::cuda {

namespace {

constexpr std::size_t kMostInList = 512;  // commands

}  // namespace

void Backend::launch(Task& task, Launch& launch) {
  refuse_if_failed();
  const Use ours(*this);
  if (task.op && task.op->copies_in) return copy_in(task);
  if (task.op && task.op->joins_devices) return all_reduce(task);
  Emit emit(*this, task.name, task.source, &launch);
  if (task.op) launch_kernel(task, launch, emit);
  else if (!task.segments.empty()) emit_segments(task, emit);
  else emit.program(*task.before, addresses_of<const void*>(task.inputs), addresses_of<void*>(task.outputs));
  append(std::move(emit.commands_), std::move(emit.watched_), task);
  if (task.traced) trace(task, launch);
}

// Of the segments that are wanted: the results of others have no memory.
void Backend::emit_segments(Task& task, Emit& emit) {
  std::vector<Emit::Side> programs;
  for (std::size_t s = 0; s < task.segments.size(); ++s) {
    const auto [program, operands, results] = segment(task, s);
    if (results.front().array.data)
      programs.push_back({program, addresses_of<const void*>(operands), addresses_of<void*>(results)});
  }
  emit.programs(std::move(programs));
}

void Backend::launch_kernel(Task& task, Launch& launch, Emit& emit) {
  const Kernel* const kernel = find_kernel(*task.op);
  if (!kernel) throw DeviceError(std::string(task.op->name) + " has no kernel for GPUs; compute it on a CPU device");
  const TaskSides sides = sides_of(task);
  if (task.before) launch.operands.push_back(emit_before(task, *kernel, launch, emit));
  for (const auto& in : sides.kernel_inputs) launch.operands.push_back(in.array);
  for (const int at : task.kernel_outputs)
    launch.results.push_back(at < 0 ? ArrayRef{} : task.outputs[static_cast<std::size_t>(at)].array);
  Args args{launch.operands, sides.outputs.back().array, task.params.get(), launch.results};
  Emit::Side after{task.after.get(), {}, {}};
  if (task.after) {  // the kernel's result has the program's shape
    args.out.dtype = task.after->inputs[0].dtype;
    args.out.data = nullptr;
    after.in = addresses_of<const void*>(sides.after_inputs);
    after.out = addresses_of<void*>(sides.outputs);
    if (!kernel->stores) {
      args.out.data = task.kernel_output >= 0 ? task.outputs[static_cast<std::size_t>(task.kernel_output)].array.data
                                              : launch.scratch(args.out.nbytes());
      after.in.insert(after.in.begin(), args.out.data);
    }
    if (kernel->stores || kernel->finishes) emit.after_ = std::exchange(after, {});
  }
  emit.args_ = &args;
  if (args.out.shape.size() > 0) kernel->emit(args, emit);
  if (after.program) emit.program(*after.program, std::move(after.in), std::move(after.out));
}

// Emits the program before a kernel, as part of its launches or as one of its own. Returns the kernel's operand.
ArrayRef Backend::emit_before(const Task& task, const Kernel& kernel, Launch& launch, Emit& emit) {
  const Program& before = *task.before;
  const TaskSides sides = sides_of(task);
  auto read = addresses_of<const void*>(sides.before_inputs);
  auto written = addresses_of<void*>(sides.before_outputs);
  ArrayRef operand{nullptr, before.shape, before.shape.dense_strides(), before.outputs.back().dtype, true};
  // A kernel that reads its operand several times must not read an input whose memory a result has taken over.
  if (kernel.loads && (kernel.loads_once || written.empty())) {
    emit.before_ = {&before, std::move(read), std::move(written)};
  } else {
    operand.data = launch.scratch(operand.nbytes());
    written.push_back(operand.data);
    emit.program(before, std::move(read), std::move(written));
  }
  return operand;
}

void Backend::append(std::vector<Command> commands, std::vector<Watched> watched, Task& task) {
  std::uint64_t arrival = 0;
  for (auto& in : task.inputs)
    if (in.storage->device == device_) arrival = std::max(arrival, in.storage->arrival);
  for (auto& out : task.outputs) arrival = std::max(arrival, out.storage->arrival);  // inherited with its memory
  if (arrival > arrived_) require_arrival(arrival);
  if (settings().log_run)
    for (const auto& c : commands) log_line("gpu " + std::to_string(index_) + ": " + c.op + ": " + c.text());
  Lock lock(mutex_);
  Ordered ordered{0, task.name, task.source, task.sequence, {}};
  for (auto& in : task.inputs) {
    if (in.storage->device != device_ || in.storage->token) continue;
    if ((task.failure = failure_of(*in.storage))) {  // it failed after this task had started
      for (const Watched& each : watched) cells_.push_back(each.cell);
      return;
    }
    if (in.storage->order != 0) ordered.reads.push_back(in.storage->order);
  }
  ordered.order = collect(std::move(commands));
  for (Watched& each : watched) checks_.push_back({each.cell, std::move(each.message), place(), ordered.order});
  for (auto& out : task.outputs) {
    out.storage->ticket = place();
    out.storage->order = ordered.order;
  }
  ordered_.push_back(std::move(ordered));
  if (list_.size() >= kMostInList) submit_locked(lock);
}

std::uint64_t Backend::collect(std::vector<Command> commands) {
  ++orders_;
  for (auto& c : commands) c.order = orders_;
  list_.insert(list_.end(), std::make_move_iterator(commands.begin()), std::make_move_iterator(commands.end()));
  if (!list_.empty()) place_ = ticket_.load();
  return orders_;
}

void Backend::clear(void* data, std::size_t bytes) {
  const Use ours(*this);
  Emit emit(*this, "clear", {}, nullptr);
  emit.clear(data, bytes);
  Lock lock(mutex_);
  collect(std::move(emit.commands_));
}

// Copies a value from another device, concurrently with this device's work.
void Backend::copy_in(Task& task) {
  const TaskOperand& from = task.inputs[0];
  Storage& to = *task.outputs[0].storage;
  if (to.bytes == 0) return;
  if (from.storage->device->backend->host_readable())
    upload(to, from.array.data);
  else
    copy_from_gpu(to, from, to.bytes);
  if (settings().log_run)
    log_line("gpu " + std::to_string(index_) + ": " + task.name + ": copy of " + std::to_string(to.bytes) +
             " bytes from device " + std::to_string(from.storage->device->id));
}

// Enables direct copies from the other GPU if possible; otherwise CUDA copies through the host.
void Backend::reach(Backend& other) {
  int direct = 0;
  if (other.context_ == context_ || !reached_.insert(&other).second) return;
  if (driver().cuDeviceCanAccessPeer(&direct, gpu_, other.gpu_) == CUDA_SUCCESS && direct)
    driver().cuCtxEnablePeerAccess(other.context_, 0);  // already enabled is not an error
}

void Backend::copy_from_gpu(Storage& to, const TaskOperand& from, std::size_t bytes) {
  auto& other = static_cast<Backend&>(*from.storage->device->backend);
  CUevent there = nullptr;
  {
    const Use its(other);
    Lock lock(other.mutex_);
    other.submit_locked(lock);
    other.settle_checks_of(lock, *from.storage);
    if (const auto failed = other.failure_of(*from.storage)) raise(*failed);
    if (from.storage->ticket > other.done_ || from.storage->arrival > other.arrived_) {
      other.wait_for_arrival(other.compute_, from.storage->arrival);
      there = other.record(other.compute_);
    }
  }
  {
    const Use ours(*this);
    Lock lock(mutex_);
    reach(other);
    wait_for_ticket(lock, in_, to.ticket);
    if (there) check(driver().cuStreamWaitEvent(in_, there, 0), "a copy between GPUs");
    check(driver().cuMemcpyPeerAsync(address(to.data), context_, address(from.array.data), other.context_, bytes, in_),
          "a copy between GPUs");
    const CUevent event = record(in_);
    to.arrival = ++arrival_;
    to.ticket = 0;
    arriving_.push_back({to.arrival, event, nullptr, 0, from.storage});
    forget_finished(lock);
  }
  if (!there) return;
  Lock lock(other.mutex_);
  other.events_.push_back(there);
}

}  // namespace owl::cuda
