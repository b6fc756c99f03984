// The workers: their loop, the stages and chunks of tasks, and watching the window while no task is ready.
#include <algorithm>
#include <cassert>
#include <system_error>
#include <utility>

#include "backend/cpu/cost.h"
#include "backend/cpu/denormals.h"
#include "base/counters.h"
#include "runtime/device_queue.h"
#include "runtime/profile.h"
#include "runtime/scheduler.h"
#include "runtime/spin.h"
#include "runtime/window.h"

namespace owl {

namespace {

using Clock = std::chrono::steady_clock;

double ns_since(Clock::time_point begin) { return std::chrono::duration<double, std::nano>(Clock::now() - begin).count(); }

// The estimate for the stage that comes next.
double stage_ns(const Task& task) {
  std::int64_t chunks = 0;
  for (const auto& stage : task.launch.stages) chunks += stage.chunks;
  const auto here = static_cast<double>(task.launch.stages[task.stage].chunks);
  return cpu::cost::kAtLeast * task.cost_ns * here / static_cast<double>(std::max<std::int64_t>(1, chunks));
}

// The link to other processes computes nothing: while it is idle, the devices may be busy, and the script slow for lack
// of a core. Planning the window then would cut what belongs in one program.
bool may_watch(const Device& device) { return device.kind != Device::Kind::kRanks; }

}  // namespace

// ---- the loop

bool Scheduler::start_worker(Device& device) {
  try {
    device.queue->workers.emplace_back([this, &device] { work(device); });
    return true;
  } catch (const std::system_error&) {  // the next call tries again; block() reports to the script if no worker runs
    return false;
  }
}

void Scheduler::start_workers(Device& device) {
  for (int i = 0; i < device.threads && start_worker(device); ++i) {
  }
}

void Scheduler::work(Device& device) {
  DenormalsToZero flush_denormals;
  std::unique_lock lock(mutex_);
  profile::name_lane("device " + std::to_string(device.id) + ", worker " +
                     std::to_string(++device.queue->started_workers));
  bool spun = false;
  while (!stopped_) {
    if (std::exchange(device.queue->batch_done, false)) {
      Unlocked unlocked(lock);
      device.backend->submit();
    }
    if (!device.queue->ready.empty() && !paused_) {
      spun = false;
      if (!watching_ && (sleeping_ > 0 || watch_owed_)) pass_watch_on(device);
      step(lock, device);
    } else {
      idle(lock, device, spun);
    }
  }
}

// ---- tasks

bool Scheduler::may_block(const Task& task) {
  return task.op && (task.op->runs_user_code || task.op->joins_devices || task.op->copies_in || task.op->effect);
}

// Lock held, no thread is inside the task. Runs stages of one chunk here; offers the next stage with several to all
// workers.
void Scheduler::advance(Lock& lock, Task* task) {
  const auto& stages = task->launch.stages;
  assert(task->threads == 0 && task->helpers == 0);
  while (true) {
    while (task->stage < stages.size() && (stages[task->stage].chunks == 0 || task->failure)) ++task->stage;
    if (task->stage == stages.size()) return finish(task, nullptr, task->device);
    const auto chunks = stages[task->stage].chunks;
    if (chunks > 1 || halted_) {  // halted: back to the queue, where a forked child finds it
      task->next_chunk = 0;
      task->device->queue->ready.push_front(task);
      return share(*task, stage_ns(*task), chunks, spare_threads(*task->device));
    }
    enter(*task);
    {
      Unlocked unlocked(lock);
      run_alone(*task);
    }
    leave(*task);
  }
}

void Scheduler::run_alone(Task& task) {
  const auto& stages = task.launch.stages;
  for (; task.stage < stages.size() && !task.failure && !halted_ && stages[task.stage].chunks <= 1; ++task.stage) {
    const auto& stage = stages[task.stage];
    if (stage.chunks == 0) continue;
    try {
      profile::Span span(task, 0, 1);
      stage.body(0);
    } catch (...) {
      task.failure = caught(task);
    }
  }
}

// This thread takes chunks too.
void Scheduler::share(Task& task, double ns, std::int64_t chunks, int spare) {
  const auto& queue = *task.device->queue;
  const int awake = static_cast<int>(std::min<std::int64_t>(queue.spinning - queue.called, chunks - 1));
  const int threads = std::max(std::min(awake, spare), cpu::cost::helpers(ns, chunks, spare));
  if (threads > 0) wake_for(*task.device, threads);
}

// The first chunk's time corrects the estimate.
void Scheduler::run_chunks(Task& task, const Launch::Stage& stage) {
  const auto begin = Clock::now();
  bool measured = false;
  while (!halted_) {
    const auto chunk = task.next_chunk.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= stage.chunks) return;
    assert(chunk >= 0);
    try {
      profile::Span span(task, chunk, stage.chunks);
      stage.body(chunk);
    } catch (...) {
      auto failure = caught(task);
      task.next_chunk = stage.chunks;
      std::lock_guard lock(mutex_);
      if (!task.failure) task.failure = std::move(failure);
    }
    const auto left = stage.chunks - task.next_chunk.load(std::memory_order_relaxed);
    if (std::exchange(measured, true) || left < 2) continue;
    if (const double ns = ns_since(begin) * static_cast<double>(left); cpu::cost::helpers(ns, left, 1) > 0) {
      std::lock_guard lock(mutex_);
      share(task, ns, left, spare_threads(*task.device) + 1);  // this one runs
    }
  }
}

void Scheduler::enter(Task& task) {
  ++running_;
  ++task.device->queue->running;
  ++task.threads;
}

void Scheduler::leave(Task& task) {
  assert(task.threads > 0 && task.device->queue->running > 0 && running_ > 0);
  --task.threads;
  --task.device->queue->running;
  if (--running_ == 0 && halted_) paused_done_.notify_all();
}

constinit thread_local Scheduler::Outside* Scheduler::outside_of_thread = nullptr;

Scheduler::Outside::Outside(Task& task) : task_(task) {
  assert(!outside_of_thread);
  outside_of_thread = this;
  auto& scheduler = Scheduler::get();
  std::lock_guard lock(scheduler.mutex_);
  scheduler.outside_.push_back(&task);
  scheduler.leave(task);
}

Scheduler::Outside::~Outside() {
  auto& scheduler = Scheduler::get();
  std::lock_guard lock(scheduler.mutex_);
  std::erase(scheduler.outside_, &task_);
  scheduler.enter(task_);
  outside_of_thread = nullptr;
}

// Lock held; the device's queue is not empty.
void Scheduler::step(Lock& lock, Device& device) {
  auto& ready = device.queue->ready;
  Task* task = ready.front();
  if (!task->started) {
    ready.pop_front();
    task->last_resort = task->last_resort && !can_free_memory();
    if (!task->last_resort && !reserve(*task)) return park(task);
    if (!ready.empty() && may_block(*task)) wake_for(device, 1);
    enter(*task);
    bool has_memory;
    double ns;
    {
      Unlocked unlocked(lock);
      const auto begin = Clock::now();
      has_memory = start_task(*task, task->last_resort);
      if (has_memory) run_alone(*task);
      ns = ns_since(begin);
    }
    leave(*task);
    if (!has_memory) return park(task);
    // Longer than estimated, so the tasks that were left to this thread may be, too.
    if (ns > cpu::cost::kWakeLatencyNs && !ready.empty() && spare_threads(device) > 0) wake_for(device, 1);
    unpark();
    return advance(lock, task);
  }
  assert(task->stage < task->launch.stages.size());
  const auto& stage = task->launch.stages[task->stage];
  if (ready.size() > 1 && may_block(*task)) wake_for(device, 1);
  enter(*task);
  ++task->helpers;
  {
    Unlocked unlocked(lock);
    run_chunks(*task, stage);
  }
  leave(*task);
  --task->helpers;
  assert(task->helpers >= 0 && (task->next_chunk >= stage.chunks || halted_));
  if (task->next_chunk < stage.chunks) return;  // halted
  if (const auto place = std::ranges::find(ready, task); place != ready.end()) ready.erase(place);
  if (task->helpers > 0) return;  // the last worker to leave the stage continues
  ++task->stage;
  advance(lock, task);
}

bool Scheduler::run_inline(TaskList& tasks, const Device* returns_to) {
  if (tasks.empty()) return returns_to != nullptr;
  DenormalsToZero flush_denormals;
  std::unique_lock lock(mutex_);
  double spent = 0;
  // A finished task appends the tasks that it made ready: the list grows during the loop.
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    Task* task = tasks[i];
    if (spent > cpu::cost::kInlineBudgetNs || paused_) {
      push_ready(task, nullptr, returns_to);
      continue;
    }
    spent += task->cost_ns;
    count(counters.inline_tasks);
    enter(*task);
    bool has_memory = reserve(*task);
    if (has_memory) {
      Unlocked unlocked(lock);
      has_memory = run_whole(*task);
    }
    leave(*task);
    if (has_memory) finish(task, &tasks, returns_to);
    else make_ready(task, true);
  }
  assert(inline_callers_ > 0);
  --inline_callers_;
  unpark();
  if (paused_ && running_ == 0) paused_done_.notify_all();
  const bool left = returns_to && !returns_to->queue->ready.empty();
  lock.unlock();
  finished_tasks.clear();
  return left;
}

// Without the lock. False: there is no memory for a result now.
bool Scheduler::run_whole(Task& task) {
  profile::Span span(task);
  const bool has_memory = start_task(task, false);
  for (auto& stage : task.launch.stages) {
    for (std::int64_t c = 0; c < stage.chunks && !task.failure; ++c) {
      try {
        stage.body(c);
      } catch (...) {
        task.failure = caught(task);
      }
    }
  }
  return has_memory;
}

// ---- idle

// This thread stops watching the window; a sleeping worker of any device takes over. One must be woken if the window is
// not empty, because the script may record no further operation.
void Scheduler::pass_watch_on(Device& device) {
  if (window_->idle_us() < 0) return;
  if (!watch_owed_) {
    if (unwatched.exchange(true, std::memory_order_seq_cst) || window_->window_empty()) return;
    unwatched.store(false, std::memory_order_seq_cst);
    watch_owed_ = true;
  }
  wake_anyone(device);
}

// Lock held. Prefers the device's own workers to another's, and sleeping ones to those not started yet. If all are
// busy, the first one to become idle checks the window anyway.
void Scheduler::wake_anyone(Device& device) {
  if (may_watch(device)) {
    if (device.queue->workers.empty()) return start_workers(device);
    if (device.queue->sleeping > 0) return device.queue->wake.notify_one();
  }
  for (Device* d : devices_)
    if (may_watch(*d) && d->queue->sleeping > 0) return d->queue->wake.notify_one();
  for (Device* d : devices_)
    if (may_watch(*d) && d->queue->workers.empty()) return start_workers(*d);
}

void Scheduler::idle(Lock& lock, Device& device, bool& spun) {
  auto& queue = *device.queue;
  if (!spun && device.backend->is_async()) {
    Unlocked unlocked(lock);
    device.backend->submit();
  }
  if (!spun && !paused_) {  // the next task often comes within a few microseconds, less than waking up takes
    spun = true;
    return spin(lock, device);
  }
  ++queue.sleeping;
  ++sleeping_;
  if (watching_ || window_->idle_us() < 0 || paused_ || !may_watch(device)) {
    queue.wake.wait(lock);
  } else if (window_->window_empty() && window_->recorded() == watched_) {
    watch_owed_ = false;
    unwatched.store(true, std::memory_order_seq_cst);
    if (window_->window_empty()) queue.wake.wait(lock);  // otherwise it was filled meanwhile: check again
  } else {
    watch_window(lock, queue);
  }
  assert(queue.sleeping > 0 && sleeping_ >= queue.sleeping);
  --queue.sleeping;
  --sleeping_;
  queue.waking = std::max(0, queue.waking - 1);
  spun = false;
}

void Scheduler::spin(Lock& lock, Device& device) {
  auto& queue = *device.queue;
  const auto seen = device.pushes.load(std::memory_order_relaxed);
  ++queue.spinning;
  {
    Unlocked unlocked(lock);
    profile::Span span("wait");
    spin_while([&] { return device.pushes.load(std::memory_order_relaxed) == seen; });
  }
  --queue.spinning;
  queue.called = std::max(0, queue.called - 1);
}

// Plans the window's operations if the script records nothing for the idle time. While it records, a worker watches even
// an empty window: the script need not wake one for each value that it waits for.
void Scheduler::watch_window(Lock& lock, Device::Queue& queue) {
  assert(!watching_);
  watching_ = true;
  watch_owed_ = false;
  unwatched.store(false, std::memory_order_seq_cst);
  const auto seen = watched_ = window_->recorded();
  queue.wake.wait_for(lock, std::chrono::microseconds(window_->idle_us()));
  const bool quiet = window_->recorded() == seen && !window_->window_empty();
  if (quiet && window_->idle_us() >= 0 && queue.ready.empty() && !paused_ && !stopped_) {
    lock.unlock();
    window_->flush(0, false);
    lock.lock();
  }
  watching_ = false;
  watch_owed_ = !window_->window_empty();  // in case ready tasks keep this thread from watching again
}

void Scheduler::wake_watcher(Device& device) {
  std::lock_guard lock(mutex_);
  if (watching_ || !unwatched.load() || stopped_) return;
  unwatched.store(false);  // a busy worker checks the window when its task ends
  watch_owed_ = true;      // ... and one that finds a ready task instead passes the watch on
  wake_anyone(device);
}

void Scheduler::settings_changed() {
  std::unique_lock lock(mutex_);
  unwatched.store(true);
  for (Device* d : devices_) d->queue->wake.notify_all();
  // After the idle time was set to "never", no worker may still be about to plan the window.
  while (watching_ && window_->idle_us() < 0) {
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
}

}  // namespace owl
