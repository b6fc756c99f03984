// A device: a backend with memory, and a queue of tasks.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "base/module_api.h"
#include "device/allocator.h"
#include "device/backend.h"
#include "owl/error.h"

namespace owl {

class Device {
 public:
  enum class Kind { kCpu, kGpu, kNull, kRanks };  // kRanks: the link to the other processes of an MPI job

  Device(Kind kind, std::string name, int threads, bool simulated, std::unique_ptr<Backend> backend)
      : kind(kind), name(std::move(name)), threads(threads), simulated(simulated), backend(std::move(backend)),
        allocator(*this->backend, id) {}

  int id = -1;
  const Kind kind;
  const std::string name;
  const int threads;
  const bool simulated;
  const std::unique_ptr<Backend> backend;
  Allocator allocator;

  struct Queue;  // the tasks, and the workers that run them (runtime/device_queue.h)
  std::shared_ptr<Queue> queue;  // created when the device is added to the scheduler
  std::atomic<std::uint64_t> pushes{0};  // watched by spinning workers
  std::size_t copied_bytes = 0;  // of cached copies of other devices' values (Engine::peer_copy_of)
  std::atomic<bool> lost_in_fork{false};

  void require_own_process() const {
    if (lost_in_fork)
      throw DeviceError("device " + std::to_string(id) + " (" + name +
                        ") cannot be used in a forked process; create the process by spawn, or use a CPU device");
  }
};

// The current device of this thread; null before its first use.
OWL_MODULE_API extern constinit thread_local Device* device_of_thread;

// Makes another device current, for a scope.
class UseDevice {
 public:
  explicit UseDevice(Device& device) : saved_(std::exchange(device_of_thread, &device)) {}
  ~UseDevice() { device_of_thread = saved_; }
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;

 private:
  Device* saved_;
};

}  // namespace owl
