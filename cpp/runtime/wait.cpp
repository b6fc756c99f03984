// Waiting: for a value, for all values, for an asynchronous device, and for task slots.
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <optional>

#include "backend/cpu/cost.h"
#include "backend/cpu/denormals.h"
#include "base/counters.h"
#include "base/hooks.h"
#include "runtime/device_queue.h"
#include "runtime/profile.h"
#include "runtime/scheduler.h"
#include "runtime/spin.h"
#include "runtime/window.h"

namespace owl {

namespace {

// The limit up to which a script may run ahead of the devices.
constexpr std::int64_t kMaxTasksInFlight = 512;
constexpr double kMaxBytesInFlight = 2e9;

using Clock = std::chrono::steady_clock;

Clock::time_point next_poll(Scheduler::Deadline deadline, Clock::duration poll) {
  const auto next = Clock::now() + poll;
  return deadline ? std::min(*deadline, next) : next;
}

}  // namespace

Device* Scheduler::waiter_device(Device& device) {
  // Under a limit a task may have to wait for memory.
  const bool takes_part = device.kind == Device::Kind::kCpu && device.allocator.limit() == 0 && !outside_of_thread;
  return takes_part ? &device : nullptr;
}

void Scheduler::hand_over(Device& device) {
  const auto& queue = *device.queue;
  const auto left = static_cast<std::int64_t>(queue.ready.size()) - queue.waking - queue.called;
  if (left > 0 && !stopped_) wake_for(device, left);
}

void Scheduler::leave_to_workers(Device& device) {
  std::lock_guard lock(mutex_);
  hand_over(device);
}

bool Scheduler::take_part(Lock& lock, Device& device) {
  if (!finished_tasks.empty()) Unlocked unlocked(lock);  // which deletes them
  if (!may_step(device)) return spin_for_change(lock, device);
  DenormalsToZero flush_denormals;
  if (!device.queue->ready.front()->started) count(counters.waiter_tasks);
  step(lock, device);
  return true;
}

bool Scheduler::may_step(const Device& device) const {
  const auto& queue = *device.queue;
  if (paused_ || queue.ready.empty() || queue.running - queue.starved >= device.threads) return false;
  const Task& task = *queue.ready.front();
  return task.cost_ns <= cpu::cost::kWaiterNs && !may_block(task);
}

bool Scheduler::spin_for_change(Lock& lock, const Device& device) {
  const auto& queue = *device.queue;
  if (!queue.ready.empty() || queue.running == 0 || queue.running >= device.threads) return false;
  const auto pushed = device.pushes.load(std::memory_order_relaxed), ended = ended_.load(std::memory_order_relaxed);
  Unlocked unlocked(lock);
  profile::Span span("wait");
  return spin_while([&] {
    return device.pushes.load(std::memory_order_relaxed) == pushed && ended_.load(std::memory_order_relaxed) == ended;
  });
}

bool Scheduler::block(Lock& lock, RankedCondition& condition, Deadline deadline, const std::function<bool()>& done,
                      Device* returns_to) {
  if (done()) {
    if (returns_to) hand_over(*returns_to);
    lock.unlock();
    return true;
  }
  if (!returns_to) start_missing_workers(lock);
  std::optional<Counted> blocked;
  if (outside_of_thread && !stopped_) {
    blocked.emplace(outside_of_thread->task_.device->queue->blocked, lock);
    replace_this_worker(lock);
  }
  lock.unlock();
  Blocking blocking;  // releases the host language's lock
  Returns returns{lock, returns_to};
  lock.lock();
  bool finished = true;
  auto until = next_poll(deadline, kSignalPoll);
  while (!done()) {
    if (stopped_) {
      lock.unlock();
      throw Error("owl has been shut down; the value was not computed");
    }
    if (!returns_to || !take_part(lock, *returns_to)) {
      if (returns_to) {
        hand_over(*returns_to);
        start_missing_workers(lock);
        if (done()) break;  // while this thread had unlocked
      }
      profile::Span span("wait");
      condition.wait_until(lock, until);
    }
    const auto now = std::chrono::steady_clock::now();
    if (now < until || done()) continue;
    if (deadline && now >= *deadline) {
      finished = false;
      break;
    }
    lock.unlock();
    if (blocking.interrupted()) throw Interrupted();
    lock.lock();
    until = next_poll(deadline, kSignalPoll);
  }
  return finished;
}

// After a fork the child has no workers yet.
void Scheduler::start_missing_workers(Lock& lock) {
  for (Device* d : devices_) {
    if (d->queue->ready.empty() || !d->queue->workers.empty() || stopped_) continue;
    start_workers(*d);
    if (!d->queue->workers.empty()) continue;
    lock.unlock();
    refuse_to_wait(*d);
  }
}

// A worker is about to block: another takes its place.
void Scheduler::replace_this_worker(Lock& lock) {
  Device& device = *outside_of_thread->task_.device;
  const auto& queue = *device.queue;
  unpark();  // this thread frees no memory until its wait ends
  const auto workers = [&] { return static_cast<int>(queue.workers.size()); };
  if (workers() >= device.threads + queue.blocked || start_worker(device) || workers() > queue.blocked) return;
  lock.unlock();
  refuse_to_wait(device);
}

void Scheduler::refuse_to_wait(Device& device) {
  std::string limits;
  const auto name_limit = [&](auto which, const char* what, const char* command) {
    rlimit limit{};
    if (getrlimit(which, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      limits += (limits.empty() ? "" : ", ") + std::string(what) + " is " + std::to_string(limit.rlim_cur) + " (" +
                command + ")";
  };
  name_limit(RLIMIT_NPROC, "the limit of this user's processes and threads", "ulimit -u");
  name_limit(RLIMIT_AS, "the limit of address space in bytes", "ulimit -v");
  std::string pids;
  if (std::ifstream("/sys/fs/cgroup/pids.max") >> pids && pids != "max")
    limits += (limits.empty() ? "" : ", ") + std::string("the limit of this container's tasks is ") + pids +
              " (cgroup pids.max)";
  throw DeviceError("device " + std::to_string(device.id) + " (" + device.name +
                    "): the system starts no thread for it, so nothing can be computed; " +
                    (limits.empty() ? "no limit of this process is set, so the machine's own is reached" : limits));
}

bool Scheduler::wait_complete(Backend& backend, const Storage* storage, Deadline deadline) {
  profile::Span span("wait");
  Blocking blocking;
  auto asked = std::chrono::steady_clock::now();
  return backend.synchronize(storage, [&] {
    const auto now = std::chrono::steady_clock::now();
    if (deadline && now >= *deadline) return false;
    if (now - asked < kSignalPoll) return true;
    asked = now;
    if (blocking.interrupted()) throw Interrupted();
    return true;
  });
}

bool Scheduler::wait_value(Storage& storage, Deadline deadline, Device* returns_to, bool left) {
  if (storage.state.load(std::memory_order_acquire) != Storage::State::kPending) {
    if (left) leave_to_workers(*returns_to);
    return true;
  }
  if (outside_of_thread)
    window_->with_window([&](const auto&) {  // no batch is being planned meanwhile
      std::lock_guard lock(mutex_);
      refuse_own_value(storage);
    });
  std::unique_lock lock(mutex_);
  storage.waited = true;
  return block(lock, value_done_, deadline,
               [&] { return storage.state.load(std::memory_order_relaxed) != Storage::State::kPending; }, returns_to);
}

// Lock held. Deadlock check: a task's own callback must not wait for its result.
void Scheduler::refuse_own_value(const Storage& wanted) const {
  std::vector<const Task*> seen;
  const auto visit = [&](const Storage& storage) {
    if (storage.producer && std::find(seen.begin(), seen.end(), storage.producer) == seen.end())
      seen.push_back(storage.producer);
  };
  visit(wanted);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (seen[i] == &outside_of_thread->task_)
      throw Error(std::string(seen[i]->name) + ": waits for a value that needs its own result");
    for (auto& input : seen[i]->inputs) visit(*input.storage);
  }
}

void Scheduler::wait_idle(Device* returns_to) {
  if (outside_of_thread)
    throw Error(std::string(outside_of_thread->task_.name) +
                ": wait_for_all inside an operation would wait for that operation itself; wait for single values");
  std::unique_lock lock(mutex_);
  Counted waiting(idle_waiters_, lock);
  block(lock, idle_done_, {}, [&] { return in_flight_.load() == 0; }, returns_to);
}

bool Scheduler::has_task_slots() const {
  return in_flight_.load(std::memory_order_relaxed) <= kMaxTasksInFlight / 2 && in_flight_bytes_ <= kMaxBytesInFlight;
}

void Scheduler::wait_for_task_slots() {
  if (outside_of_thread) return;  // otherwise it would wait for its own task
  if (in_flight_.load(std::memory_order_relaxed) <= kMaxTasksInFlight && in_flight_bytes_ <= kMaxBytesInFlight) return;
  std::unique_lock lock(mutex_);
  Counted waiting(slot_waiters_, lock);
  block(lock, slots_freed_, {}, [&] { return has_task_slots() || in_flight_.load() == 0; });
}

}  // namespace owl
