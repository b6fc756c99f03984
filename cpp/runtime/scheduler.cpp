#include "runtime/scheduler.h"

#include <pthread.h>

#include "base/hooks.h"
#include "runtime/device_queue.h"

namespace owl {

Scheduler::Scheduler() {
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  // The mutex is held briefly and contended often: a thread that finds it locked spins before it sleeps.
  pthread_mutexattr_t adaptive;
  pthread_mutexattr_init(&adaptive);
  pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
  pthread_mutex_init(mutex_.native_handle(), &adaptive);
  pthread_mutexattr_destroy(&adaptive);
#endif
}

Scheduler& Scheduler::get() {
  static Scheduler* s = new Scheduler;  // never destroyed: workers and handles may outlive static destruction
  return *s;
}

void Scheduler::register_device(Device* device) {
  device->queue = std::make_shared<Device::Queue>();
  std::lock_guard lock(mutex_);
  devices_.push_back(device);
}

void Scheduler::shutdown() {
  std::vector<std::thread> workers;
  {
    std::lock_guard lock(mutex_);
    halted_ = stopped_ = true;
    for (Device* d : devices_) {
      for (auto& w : d->queue->workers) workers.push_back(std::move(w));
      d->queue->workers.clear();
      d->queue->wake.notify_all();
      d->queue->memory_freed.notify_all();
    }
    value_done_.notify_all();
    idle_done_.notify_all();
    slots_freed_.notify_all();
  }
  for (auto& w : workers) w.join();
  std::unique_lock lock(mutex_);
  while (running_ > 0) paused_done_.wait(lock);  // other threads, inside tasks that they run themselves
}

std::string Scheduler::describe() {
  std::lock_guard lock(mutex_);
  std::string text;
  for (Device* d : devices_) {
    const auto& q = *d->queue;
    text += "device " + std::to_string(d->id) + " (" + d->name + "): " + std::to_string(q.workers.size()) +
            " workers, " + std::to_string(q.sleeping) + " asleep, " + std::to_string(q.starved) +
            " waiting for memory, " + std::to_string(q.ready.size()) + " tasks ready\n";
  }
  for (const Task* t = newest_; t; t = t->older) {
    const auto place = place_of(t->source);
    text += "task " + std::string(t->name) + (place.empty() ? "" : " of " + place) + " on device " +
            std::to_string(t->device->id) + ": " +
            (t->threads > 0             ? "on " + std::to_string(t->threads) + " threads"
             : t->unfinished_inputs > 0 ? "waits for " + std::to_string(t->unfinished_inputs) + " operands"
                                        : "ready") + "\n";
  }
  return text;
}

}  // namespace owl
