// A device: memory, a queue of ready tasks, and the workers that run them.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "owl/error.h"
#include "runtime/allocator.h"

namespace owl {

struct Task;

class Device {
 public:
  enum class Kind { kCpu, kGpu, kNull };

  Device(Kind kind, std::string name, int threads, bool simulated, std::unique_ptr<Backend> backend)
      : kind(kind), name(std::move(name)), threads(threads), simulated(simulated), backend(std::move(backend)),
        allocator(*this) {}

  int id = -1;
  const Kind kind;
  const std::string name;
  const int threads;
  const bool simulated;
  const std::unique_ptr<Backend> backend;
  Allocator allocator;

  // Guarded by the scheduler's mutex.
  struct Queue {
    std::deque<Task*> ready;  // whose inputs are there, or which have chunks to hand out
    std::deque<Task*> parked;  // ready, but without memory for what they need; in the order of submission
    std::size_t reserved = 0;  // bytes that tasks which start just now will allocate
    std::vector<std::thread> workers;
    std::condition_variable wake;
    bool batch_done = false;   // all tasks of a batch are through: to be handed over together (Backend::submit)
    int started_workers = 0;
    int sleeping = 0;
    int waking = 0;           // of these, told to wake up
    int running = 0;          // threads inside a task of this device
    int starved = 0;          // of these, waiting for memory
    int blocked = 0;          // workers that wait in code of the host language (Scheduler::Outside)
    int memory_waiters = 0;   // threads on memory_freed: the starved, and scripts that bring data
    std::condition_variable memory_freed;
  } queue;
  std::atomic<std::uint64_t> pushes{0};  // watched by spinning workers
  std::size_t copied_bytes = 0;  // of values of other devices, kept beside these (Engine::peer_copy_of)
  std::atomic<bool> lost_in_fork{false};

  void require_own_process() const {
    if (lost_in_fork)
      throw DeviceError("device " + std::to_string(id) + " (" + name +
                        ") cannot be used in a forked process; create the process by spawn, or use a CPU device");
  }
};

}  // namespace owl
