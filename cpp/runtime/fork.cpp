// fork(): the child finds no half-run task, no locked mutex and no thread.
#include <algorithm>
#include <cassert>
#include <mutex>
#include <new>
#include <utility>

#include "runtime/device_queue.h"
#include "runtime/scheduler.h"

namespace owl {

void Scheduler::before_fork() {
  std::unique_lock lock(mutex_);
  halted_ = paused_ = true;
  while (running_ > 0 || inline_callers_ > 0) paused_done_.wait(lock);
  assert(std::ranges::all_of(devices_, [](Device* d) { return d->queue->running == 0 && d->queue->reserved == 0; }));
  lock.release();  // stays locked across the fork
}

void Scheduler::after_fork_parent() {
  paused_ = false;
  halted_ = stopped_;
  for (Device* d : devices_) d->queue->wake.notify_all();
  mutex_.unlock();
}

void Scheduler::after_fork_child() {
  // The child lacks the parent's workers and waiters: reset the condition variables.
  for (auto* cv : {&value_done_, &idle_done_, &slots_freed_, &paused_done_}) new (cv) RankedCondition;
  idle_waiters_ = slot_waiters_ = inline_callers_ = 0;
  // The other threads' host-language code ended with them; this thread's continues.
  for (Task* task : outside_) {
    if (outside_of_thread && &outside_of_thread->task_ == task) continue;
    auto& ready = task->device->queue->ready;
    if (std::ranges::find(ready, task) == ready.end()) ready.push_front(task);  // a task from the queue is still in it
    task->next_chunk = 0;
    task->helpers = 0;
  }
  std::erase_if(outside_, [](Task* t) { return !outside_of_thread || &outside_of_thread->task_ != t; });
  for (Device* d : devices_) {
    auto& q = *d->queue;
    new (&q.wake) RankedCondition;
    new (&q.memory_freed) RankedCondition;
    new (&q.workers) std::vector<std::thread>;  // not destroyed: a joinable thread would end the process
    q.started_workers = q.sleeping = q.waking = q.spinning = q.called = 0;
    q.running = q.starved = q.blocked = q.memory_waiters = 0;
    if (d->kind == Device::Kind::kGpu || d->kind == Device::Kind::kRanks) d->lost_in_fork = true;
  }
  running_ = sleeping_ = 0;
  paused_ = watching_ = watch_owed_ = false;
  halted_ = stopped_;
  unwatched.store(true);
  mutex_.unlock();
}

}  // namespace owl
