// A device's ready tasks, and the workers that run them.
#pragma once

#include <cstddef>
#include <deque>
#include <thread>
#include <vector>

#include "base/ranked_mutex.h"
#include "device/device.h"

namespace owl {

struct Task;

// Guarded by the scheduler's mutex.
struct Device::Queue {
  std::deque<Task*> ready;   // whose inputs are ready, or which have chunks left
  std::deque<Task*> parked;  // ready, but without memory; in order of submission
  std::size_t reserved = 0;  // bytes that starting tasks will allocate
  std::vector<std::thread> workers;
  RankedCondition wake;
  bool batch_done = false;   // all tasks of a batch have ended: call Backend::submit
  int started_workers = 0;
  int sleeping = 0;
  int waking = 0;            // of these, already notified
  int spinning = 0;          // workers that are awake and look for a task
  int called = 0;            // of these, for whom a task was left
  std::int64_t work_ns = 0;  // estimate of the tasks in flight, on one thread
  int running = 0;           // threads inside a task of this device
  int starved = 0;           // of these, waiting for memory
  int blocked = 0;           // workers that wait inside host-language code (Scheduler::Outside)
  int memory_waiters = 0;    // threads waiting on memory_freed: the starved, and scripts that import data
  RankedCondition memory_freed;
};

}  // namespace owl
