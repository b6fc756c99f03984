// Memory under a limit: which task may allocate when, and waiting for memory.
//
// Whether memory suffices must not depend on the number of threads. So recorded order decides: a program that fits when
// its tasks run one after another in that order always succeeds. A task that is ready before earlier ones have started
// may allocate only if all of these could still run in order, each with the memory it needs; otherwise it is parked
// until others have ended. The earliest task that has not started may allocate all of the rest.
#include <algorithm>
#include <cassert>
#include <unordered_map>

#include "runtime/faults.h"
#include "runtime/device_queue.h"
#include "runtime/scheduler.h"
#include "runtime/window.h"

namespace owl {

namespace {

std::string described(const Storage& storage) { return storage.op + std::string(" ") + storage.shape.str(); }

// On the task's own device.
std::size_t bytes_of_results(const Task& task) {
  std::size_t bytes = 0;
  for (const auto& out : task.outputs)
    if (out.storage->device == task.device) bytes += Allocator::rounded(out.storage->bytes);
  return bytes;
}

// The bytes freed when the task and all earlier ones have ended. `uses` counts the operands of the tasks so far.
std::size_t bytes_freed_by(const Task& task, const Device& device, std::unordered_map<const Storage*, int>& uses) {
  std::size_t bytes = 0;
  const auto count = [&](const TaskOperand& operand) {
    const Storage& storage = *operand.storage;
    const bool moved = task.placed && !storage.data;  // a result took over the memory
    if (++uses[&storage] == storage.refs() && storage.device == &device && !storage.foreign_release && !moved)
      bytes += Allocator::rounded(storage.bytes);
  };
  for (const auto& in : task.inputs) count(in);
  for (const auto& out : task.outputs) count(out);
  return bytes;
}

}  // namespace

[[noreturn]] static void refuse_memory(Device& device, std::size_t bytes, const std::string& what, bool injected) {
  const auto stats = device.allocator.stats();
  const auto holders = device.allocator.largest_holders(10);
  throw OutOfMemoryError(what + ": no memory for " + std::to_string(bytes) + " bytes on device " +
                         std::to_string(device.id) + (injected ? " (injected fault, OWL_FAULT)" : "") + ": " +
                         std::to_string(stats.allocated) + " bytes are in use" +
                         (stats.limit ? ", the limit is " + std::to_string(stats.limit) : std::string()) +
                         "; drop arrays, use smaller ones, or raise the limit (owl.set_memory_limit)" +
                         (holders.empty() ? "" : ". The largest holders: " + holders));
}

// ---- results

namespace {

// The scratch memory that the kernel requests, from a trial launch, which only adds stages. Null if the launch might do
// more than that.
std::optional<std::size_t> scratch_of(Task& task) {
  if ((task.op && task.op->runs_user_code) || task.device->backend->is_async()) return {};
  Launch trial;
  trial.device = task.device;
  trial.task = &task;
  trial.measured = 0;
  try {
    task.device->backend->launch(task, trial);
  } catch (const std::exception&) {  // the real launch will report it
    return {};
  }
  return trial.measured;
}

}  // namespace

void Scheduler::measure_scratch(const Tasks& tasks) {
  for (const auto& task : tasks)
    if (task->device->allocator.limit() > 0) task->scratch = scratch_of(*task);
}

bool Scheduler::can_spare(Device& device, std::size_t bytes, const Task* end) const {
  const auto is_to_start = [&](const Task& task) { return task.device == &device && !task.placed && !task.reserved; };
  const auto is_unmeasured = [&](const Task& task) { return task.device == &device && !task.placed && !task.scratch; };
  const std::size_t limit = device.allocator.limit();
  const std::size_t taken = device.allocator.allocated() + device.queue->reserved + bytes;
  if (device.queue->reserved > 0 && taken > limit) return false;  // tasks that are starting come first
  std::size_t most = taken;  // if nothing were freed meanwhile
  for (const Task* task = oldest_; task != end; task = task->newer) {
    if (is_unmeasured(*task)) return false;
    if (!is_to_start(*task)) continue;
    most += bytes_of_results(*task) + *task->scratch;
  }
  if (most == taken || most <= limit) return true;
  std::size_t used = taken;
  std::unordered_map<const Storage*, int> uses;
  for (const Task* task = oldest_; task != end; task = task->newer) {
    if (is_to_start(*task)) {
      used += bytes_of_results(*task);
      if (used + *task->scratch > limit) return false;
    }
    if (!task->reserved) used -= std::min(used, bytes_freed_by(*task, device, uses));
  }
  return true;
}

bool Scheduler::reserve(Task& task) {
  auto& allocator = task.device->allocator;
  if (allocator.limit() == 0 || !task.device->backend->computes()) return true;
  const auto needs = std::max<std::size_t>(1, bytes_of_results(task) + task.scratch.value_or(0));
  if (!can_spare(*task.device, needs, &task) &&
      !(allocator.drop_packed() && can_spare(*task.device, needs, &task)))
    return false;
  assert(task.reserved == 0 && !task.placed);
  task.reserved = needs;
  task.device->queue->reserved += needs;
  return true;
}

void Scheduler::place(Task& task, bool has_memory) {
  std::lock_guard lock(mutex_);
  assert(task.device->queue->reserved >= task.reserved);
  task.device->queue->reserved -= std::exchange(task.reserved, 0);
  task.placed = has_memory;
}

bool Scheduler::take_for_result(Storage& storage, bool idle) {
  auto& allocator = storage.device->allocator;
  return allocator.allocate(storage, idle) ||
         (window_->drop_peer_copies(*storage.device, storage.bytes) && allocator.allocate(storage, idle));
}

[[noreturn]] void refuse_memory(const Storage& storage, bool injected) {
  refuse_memory(*storage.device, storage.bytes, described(storage), injected);
}

// The task has no memory for its results, or may not allocate yet: it waits for others to end. If none runs, the
// earliest waiting task must use what is free, and fails if that does not suffice.
void Scheduler::park(Task* task) {
  assert(!task->started && task->threads == 0 && task->reserved == 0);
  auto& parked = task->device->queue->parked;
  const auto submitted_earlier = [](const Task* a, const Task* b) { return a->order < b->order; };
  parked.insert(std::upper_bound(parked.begin(), parked.end(), task, submitted_earlier), task);
  if (can_free_memory()) return;
  Device* first = task->device;
  for (Device* d : devices_)
    if (!d->queue->parked.empty() && d->queue->parked.front()->order < first->queue->parked.front()->order) first = d;
  Task* const earliest = first->queue->parked.front();
  first->queue->parked.pop_front();
  earliest->last_resort = true;
  make_ready(earliest, true, first == task->device ? first : nullptr);
}

void Scheduler::unpark() {
  for (Device* d : devices_) {
    auto& parked = d->queue->parked;
    if (parked.empty()) continue;
    Task* task = parked.front();
    parked.pop_front();
    make_ready(task, true);
  }
}

bool Scheduler::can_free_memory() const {
  int blocked = 0;  // of the tasks in outside_: these wait themselves
  for (const Device* d : devices_) blocked += d->queue->blocked;
  if (running_ > 0 || inline_callers_ > 0 || static_cast<int>(outside_.size()) > blocked) return true;
  return std::any_of(devices_.begin(), devices_.end(), [](Device* d) { return !d->queue->ready.empty(); });
}

// ---- scratch memory

bool Scheduler::wait_for_memory(Device& device, const std::function<bool()>& take) {
  std::unique_lock lock(mutex_);
  auto& q = *device.queue;
  assert(q.starved < q.running);
  // Another task may free memory when it ends; if all running tasks wait here, none will.
  while (q.running - q.starved > 1 && !stopped_ && !paused_) {
    ++q.starved;
    ++q.memory_waiters;
    q.memory_freed.wait_for(lock, kSignalPoll);
    --q.memory_waiters;
    --q.starved;
    lock.unlock();
    if (take()) return true;
    lock.lock();
  }
  return false;
}

void Scheduler::with_memory(Device& device, std::size_t bytes, const std::string& what,
                            const std::function<bool()>& take) {
  const bool injected = Faults::due(faults().alloc);
  if (injected || !(take() || (window_->drop_peer_copies(device, bytes) && take()) ||
                    wait_for_memory(device, take)))
    refuse_memory(device, bytes, what, injected);
}

void* Launch::scratch(std::size_t bytes) {
  if (measured) {
    static char stand_in;  // only stages would use the memory
    *measured += Allocator::rounded(bytes);
    return &stand_in;
  }
  void* data = nullptr;
  Scheduler::get().with_memory(*device, bytes, "scratch memory",
                               [&] { return (data = device->allocator.allocate(bytes)) != nullptr; });
  scratch_blocks.emplace_back(data, bytes);
  return data;
}

void* Launch::packed(const void* operand, std::int64_t layout, std::size_t bytes, bool& ready) {
  if (!task || measured) return nullptr;  // a kernel called directly, or a trial launch
  const auto found = std::ranges::find(task->inputs, operand, [](const TaskOperand& in) { return in.array.data; });
  if (found == task->inputs.end() || found->offset != 0 || found->storage->foreign_release) return nullptr;
  const auto packing = device->allocator.pack(*found->storage, layout, bytes);
  if (packing.data) packed_operands.emplace_back(found->storage.get(), layout);
  ready = packing.ready;
  return packing.data;
}

// ---- imported data

// Earlier operations come first, including those being planned, for which a flush waits too.
bool Scheduler::wait_for_data_memory(Storage& storage) {
  window_->flush(0, true);
  std::unique_lock lock(mutex_);
  auto& q = *storage.device->queue;
  auto& allocator = storage.device->allocator;
  Counted waiting(q.memory_waiters, lock);
  bool taken = false;
  block(lock, q.memory_freed, {}, [&] {
    if (taken) return true;  // block() may call this again
    const bool last_try = !can_free_memory() || (outside_of_thread && running_ == 0);
    if (last_try || can_spare(*storage.device, Allocator::rounded(storage.bytes), nullptr))
      taken = allocator.allocate(storage, true);
    return taken || last_try;
  });
  return taken;
}

void set_fault(std::int64_t alloc, std::int64_t op) {
  faults().alloc = alloc;
  faults().op = op;
}

}  // namespace owl
