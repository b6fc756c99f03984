// The scheduler's queues: submission, tasks that wait for operands, ready tasks, and their end.
#include "runtime/device_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "backend/cpu/cost.h"
#include "base/counters.h"
#include "runtime/scheduler.h"

namespace owl {

namespace {

double bytes_of(const Task& task) {
  double bytes = 0;
  for (auto& o : task.outputs) bytes += static_cast<double>(o.storage->bytes);
  return bytes;
}

// What the task takes at least, for the choice of threads.
std::int64_t least_ns(const Task& task) { return static_cast<std::int64_t>(cpu::cost::kAtLeast * task.cost_ns); }

int is_user_task(const Task& task) { return task.op && task.op->runs_user_code; }

[[maybe_unused]] bool is_pending(const TaskOperand& in) { return !in.storage->ready() && !in.storage->failed(); }

}  // namespace

thread_local Tasks Scheduler::finished_tasks;

void Scheduler::submit(Tasks tasks, TaskList* inline_tasks,
                       const Device* returns_to) {
  std::vector<std::pair<Device*, std::shared_ptr<int>>> batches;
  measure_scratch(tasks);
  std::lock_guard lock(mutex_);
  for (auto& owned : tasks) {
    Task* task = owned.release();
    task->pinned = false;
    assert(task->unfinished_inputs == 0 && !task->started && task->threads == 0);
    enlist(*task);
    if (task->device->backend->is_async()) {
      auto batch = std::ranges::find(batches, task->device, &std::pair<Device*, std::shared_ptr<int>>::first);
      if (batch == batches.end()) batch = batches.emplace(batch, task->device, std::make_shared<int>(0));
      task->batch = batch->second;
      ++*task->batch;
    }
    for (auto& input : task->inputs) {
      if (Task* producer = input.storage->producer) {
        producer->successors.push_back(task);
        ++task->unfinished_inputs;
      }
    }
    if (task->unfinished_inputs == 0) push_ready(task, inline_tasks, returns_to);
  }
  if (inline_tasks && !inline_tasks->empty()) ++inline_callers_;
}

void Scheduler::enlist(Task& task) {
  task.order = ++submitted_;
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  in_flight_bytes_ += bytes_of(task);
  task.device->queue->work_ns += least_ns(task);
  user_tasks_ += is_user_task(task);
  task.older = newest_;
  (newest_ ? newest_->newer : oldest_) = &task;
  newest_ = &task;
}

void Scheduler::give_up(Ref<Storage> value) {
  Storage::DeferForeign deferred;
  std::vector<Ref<Storage>> values;  // perhaps referred to only here and by their tasks
  values.push_back(std::move(value));
  std::lock_guard lock(mutex_);
  while (!values.empty()) {
    const auto given_up = std::move(values.back());
    values.pop_back();
    Task* task = given_up->producer;
    if (!task || task->pinned || task->threads > 0 || task->started) continue;  // threads first: they set `started`
    if (task->op && task->op->effect) continue;
    const auto is_wanted = [&](const TaskOperand& out) {
      return out.storage->refs() > (out.storage == given_up ? 2 : 1);
    };
    if (std::ranges::any_of(task->outputs, is_wanted)) continue;
    for (auto& in : task->inputs)
      if (!in.storage->ready() && std::ranges::find(values, in.storage) == values.end()) values.push_back(in.storage);
    task->inputs.clear();
    task->given_up = true;
  }
}

void Scheduler::push_ready(Task* task, TaskList* inline_tasks, const Device* returns_to) {
  assert(task->unfinished_inputs == 0 && std::ranges::none_of(task->inputs, is_pending));
  if (inline_tasks && task->cost_ns <= cpu::cost::kHandOverNs && task->device->kind == Device::Kind::kCpu) {
    inline_tasks->push_back(task);
    return;
  }
  make_ready(task, false, returns_to);
}

void Scheduler::make_ready(Task* task, bool first, const Device* returns_to) {
  auto& queue = *task->device->queue;
  if (first) {
    queue.ready.push_front(task);
  } else {
    // In recorded order, after tasks that have chunks left: a value's producer runs close to its last reader, so that
    // few values wait in memory.
    const auto is_later = [&](const Task& other) { return !other.started && other.sequence > task->sequence; };
    auto place = queue.ready.end();
    while (place != queue.ready.begin() && is_later(**std::prev(place))) --place;
    queue.ready.insert(place, task);
  }
  if (returns_to != task->device || is_worth_sharing(*task->device)) wake_for(*task->device, 1);
}

void Scheduler::wake_for(Device& device, std::int64_t threads) {
  auto& queue = *device.queue;
  device.pushes.fetch_add(1, std::memory_order_relaxed);
  if (queue.workers.empty()) start_workers(device);
  for (; threads > 0 && queue.called < queue.spinning; --threads) ++queue.called;
  for (; threads > 0 && queue.waking < queue.sleeping; --threads, ++queue.waking) {
    count(counters.wakes);
    queue.wake.notify_one();
  }
}

int Scheduler::spare_threads(const Device& device) {
  const auto& queue = *device.queue;
  const int wanted = device.threads - 1 - (queue.running - queue.starved) - queue.waking - queue.called;
  const int idle = queue.sleeping - queue.waking + queue.spinning - queue.called;
  return std::max(0, queue.workers.empty() ? wanted : std::min(wanted, idle));
}

// This thread is about to take the first ready task.
bool Scheduler::is_worth_sharing(const Device& device) {
  const auto& queue = *device.queue;
  const auto ready = static_cast<std::int64_t>(queue.ready.size());
  if (ready < 2 || spare_threads(device) < 1) return false;
  return queue.called < queue.spinning || cpu::cost::helpers(static_cast<double>(queue.work_ns), ready, 1) > 0;
}

// Lock held. Publishes the results and makes successors ready.
void Scheduler::finish(Task* task, TaskList* inline_tasks, const Device* returns_to) {
  assert(task->threads == 0 && task->helpers == 0);
  const bool waited = publish(*task);
  for (Task* next : task->successors) {
    assert(next->unfinished_inputs > 0);
    if (--next->unfinished_inputs == 0) push_ready(next, inline_tasks, returns_to);
  }
  in_flight_bytes_ = in_flight_bytes_ - bytes_of(*task);
  task->device->queue->work_ns -= least_ns(*task);
  release_memory(*task);
  user_tasks_ -= is_user_task(*task);
  const auto left = in_flight_.fetch_sub(1, std::memory_order_relaxed) - 1;
  assert(left >= 0);
  ended_.fetch_add(1, std::memory_order_release);
  if (waited) value_done_.notify_all();
  if (left == 0 && idle_waiters_) idle_done_.notify_all();
  if (slot_waiters_ && has_task_slots()) slots_freed_.notify_all();
  (task->older ? task->older->newer : oldest_) = task->newer;
  (task->newer ? task->newer->older : newest_) = task->older;
  assert(!task->batch || *task->batch > 0);
  auto& queue = *task->device->queue;
  if (task->batch && --*task->batch == 0) queue.batch_done = true;
  if (queue.memory_waiters) queue.memory_freed.notify_all();
  unpark();
  finished_tasks.emplace_back(task);
}

// Marks the task's results as computed or failed. True if a thread waits for one of them.
bool Scheduler::publish(Task& task) {
  bool waited = false;
  for (auto& out : task.outputs) {
    Storage& value = *out.storage;
    assert(value.producer == &task && !value.ready() && !value.failed());
    value.producer = nullptr;
    waited |= value.waited;
    // A token's own failure is that of an earlier effect.
    const auto& failure = task.failure && !(value.token && out.failure) ? task.failure : out.failure;
    if (failure) value.fail(failure);
    else value.state.store(Storage::State::kReady, std::memory_order_release);
  }
  return waited;
}

// Under the lock, so that a task which starts later sees whether it may take over this memory. Imported memory is
// released after the lock.
void Scheduler::release_memory(Task& task) {
  for (auto& [storage, layout] : task.launch.packed_operands)
    storage->device->allocator.unpack(*storage, layout, !task.failure);
  std::erase_if(task.inputs, [](const TaskOperand& in) { return !in.storage->foreign_release; });
  task.outputs.clear();
  for (auto& [data, bytes] : task.launch.scratch_blocks) task.device->allocator.free(data, bytes);
}

}  // namespace owl
