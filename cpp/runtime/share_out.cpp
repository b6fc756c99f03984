// Work that a calling thread shares with idle workers: copies of large host memory.
#include <memory>
#include <mutex>
#include <thread>

#include "backend/cpu/cost.h"
#include "runtime/device_queue.h"
#include "runtime/scheduler.h"
#include "runtime/spin.h"

namespace owl {

namespace {

struct Shared {
  const std::int64_t chunks;
  const std::function<void(std::int64_t)> body;  // a child of a fork lacks the caller's
  std::atomic<std::int64_t> next{0}, ended{0};

  void run() {
    for (std::int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      body(chunk);
      ended.fetch_add(1, std::memory_order_release);
    }
  }
  bool unfinished() const { return ended.load(std::memory_order_acquire) < chunks; }
};

}  // namespace

// The workers get a task of their own, each chunk of which takes part until nothing is left; one that comes too late
// finds nothing to do.
void Scheduler::share_out(Device& device, const char* name, double ns, std::int64_t chunks,
                          const std::function<void(std::int64_t)>& body) {
  const std::shared_ptr<Shared> shared(new Shared{chunks, body});
  {
    std::lock_guard lock(mutex_);
    if (const int threads = halted_ ? 0 : cpu::cost::helpers(ns, chunks, spare_threads(device)); threads > 0) {
      auto* task = new Task;
      task->device = &device;
      task->name = name;
      task->cost_ns = ns;
      task->started = task->placed = true;
      task->launch.stage(threads, [shared](std::int64_t) { shared->run(); });
      enlist(*task);
      device.queue->ready.push_front(task);
      wake_for(device, threads);
    }
  }
  shared->run();
  while (shared->unfinished())
    if (!spin_while([&] { return shared->unfinished(); })) std::this_thread::yield();
}

}  // namespace owl
