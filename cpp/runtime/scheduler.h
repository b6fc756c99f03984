// Runs tasks whose inputs are ready: on the workers of every device, tiny ones on the calling thread, short ones on a
// thread that waits for a value. A file per concern: queue.cpp (submission, ready tasks, their end), start_task.cpp
// (memory and launch), worker.cpp (the workers' loop, chunks, watching the window), wait.cpp, memory_wait.cpp, fork.cpp.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/module_api.h"
#include "base/ranked_mutex.h"
#include "device/device.h"
#include "plan/task.h"

namespace owl {

class Window;

class Scheduler {
 public:
  static Scheduler& get();
  void set_window(Window& window) { window_ = &window; }  // before any device is registered

  // Takes over planned tasks, in an order in which inputs come first. Returns tiny ready tasks in `inline_tasks` (if
  // given) for run_inline; all others go to the devices' queues. `returns_to`: this thread waits next and then takes
  // tasks of that device (waiter_device), so that no worker is woken for the first.
  void submit(Tasks tasks, TaskList* inline_tasks, const Device* returns_to);
  // Whether tasks are ready that this thread returns to.
  bool run_inline(TaskList& tasks, const Device* returns_to);
  // No handle, operation or task needs the value: tasks that only it needs, and that have not started, release their
  // operands and are skipped.
  void give_up(Ref<Storage> value);

  // Block (see RuntimeHooks) until done; false: the deadline passed. Throw Interrupted.
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;
  // `left`: tasks of `returns_to` are ready that no worker has been woken for.
  bool wait_value(Storage& storage, Deadline deadline, Device* returns_to = nullptr, bool left = false);
  // Then, for an asynchronous device: until the value, or (null) all ordered work, is complete.
  bool wait_complete(Backend& backend, const Storage* storage, Deadline deadline);
  void wait_idle(Device* returns_to);
  // The device if a thread that waits for its values takes part in its work, else null.
  static Device* waiter_device(Device& device);
  void wait_for_task_slots();  // while the number of tasks in flight exceeds kMaxTasksInFlight

  // Runs the chunks, together `ns` on one thread, on this thread and on idle workers. They must not throw. Returns when
  // all have ended.
  void share_out(Device& device, const char* name, double ns, std::int64_t chunks,
                 const std::function<void(std::int64_t chunk)>& body);

  // The script recorded into an empty window that no worker watched: wakes, or starts, a worker of the device.
  void wake_watcher(Device& device);
  std::atomic<bool> unwatched{true};
  void settings_changed();  // the window's limits changed: wakes sleeping workers

  void shutdown();
  void before_fork();
  void after_fork_parent();
  void after_fork_child();
  void register_device(Device* device);

  std::string describe();  // one line per device and per task in flight

  // Memory for imported data (memory_wait.cpp): plans the operations recorded before and waits until they can spare it;
  // false if no task is left that could free memory.
  bool wait_for_data_memory(Storage& storage);
  // Memory for a result; first drops copies of other devices' values that can be made again.
  bool take_for_result(Storage& storage, bool idle);
  // Calls `take` until it gets the memory, dropping copies and waiting in between; if neither can help,
  // OutOfMemoryError for `what`.
  void with_memory(Device& device, std::size_t bytes, const std::string& what, const std::function<bool()>& take);

  std::int64_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  // Whether tasks in flight call code of the script, which may wait for values itself.
  bool calls_user_code() const { return user_tasks_.load(std::memory_order_relaxed) > 0; }

  // While one exists, this worker runs host-language code for the task, in the task's only chunk. The code may need the
  // language's lock and may wait for values. So fork() does not wait for it (a child runs the chunk again), and while
  // it waits another thread takes the worker's place.
  class OWL_MODULE_API Outside {
   public:
    explicit Outside(Task& task);
    ~Outside();
    Outside(const Outside&) = delete;
    Outside& operator=(const Outside&) = delete;

   private:
    friend class Scheduler;
    Task& task_;
  };

 private:
  using Mutex = RankedMutex<LockRank::kScheduler>;
  using Lock = std::unique_lock<Mutex>;

  // Counts a waiter, also if the wait ends by an exception.
  struct Counted {
    Counted(int& n, Lock& lock) : n(n), lock(lock) { ++n; }
    ~Counted() {
      if (!lock.owns_lock()) lock.lock();
      --n;
    }
    int& n;
    Lock& lock;
  };

  // The scope of a waiting thread, which may take part in a device's work: at its end the workers get what is left.
  struct Returns {
    ~Returns() {
      if (device && !lock.owns_lock()) lock.lock();
      if (device) get().hand_over(*device);
      if (lock.owns_lock()) lock.unlock();
      finished_tasks.clear();
    }
    Lock& lock;
    Device* device;
  };

  // Unlocks the lock for a scope.
  struct Unlocked {
    explicit Unlocked(Lock& lock) : lock(lock) {
      lock.unlock();
      finished_tasks.clear();
    }
    ~Unlocked() { lock.lock(); }
    Lock& lock;
  };

  // With `mutex_` held on entry and return, unless said otherwise.

  // --- queue.cpp. `returns_to`: this thread is about to take a task from that device's queue.
  void enlist(Task& task);  // among the tasks in flight
  void push_ready(Task* task, TaskList* inline_tasks, const Device* returns_to);
  void make_ready(Task* task, bool first, const Device* returns_to = nullptr);
  void wake_for(Device& device, std::int64_t threads);  // so many idle workers look at the queue: spinning ones, then
                                                        // sleeping ones, which are woken
  static bool may_block(const Task& task);  // its threads may wait for what other tasks or other threads must do
  static bool is_worth_sharing(const Device& device);   // whether another thread should take a ready task
  static int spare_threads(const Device& device);       // that could run beside this one and those that run
  void finish(Task* task, TaskList* inline_tasks, const Device* returns_to);
  bool publish(Task& task);
  void release_memory(Task& task);

  // --- start_task.cpp, without the lock. False: there is no memory for a result, and the task may be tried again
  // later; with `last_resort` the task fails instead.
  bool start_task(Task& task, bool last_resort);
  bool bind_and_launch(Task& task, bool last_resort);
  bool bind_results(Task& task, std::span<TaskOperand> operands, std::span<TaskOperand> results, bool last_resort,
                    const Storage*& wants_memory);
  bool bind_segments(Task& task, bool last_resort);
  bool bind_result(Task& task, std::span<TaskOperand> operands, TaskOperand& out, bool last_resort);
  // The exception being handled, as a value: of the task's kernel, or of the operation whose result got no memory.
  static std::shared_ptr<const Failure> caught(const Task& task, const Storage* result = nullptr);

  // --- worker.cpp
  bool start_worker(Device& device);   // false: the system starts no more threads
  void start_workers(Device& device);  // all of the device's threads, or as many as the system starts
  void work(Device& device);           // a worker's loop
  void step(Lock& lock, Device& device);  // starts the task at the queue's front, or runs chunks of it
  void advance(Lock& lock, Task* task);
  void enter(Task& task);
  void leave(Task& task);
  void run_alone(Task& task);  // without the lock: the next stages that have one chunk
  // Of `spare` threads as many look at the queue as shorten these chunks, which take `ns` on one thread.
  void share(Task& task, double ns, std::int64_t chunks, int spare);
  void run_chunks(Task& task, const Launch::Stage& stage);  // without the lock: until no chunk is left
  bool run_whole(Task& task);  // without the lock: starts the task and runs it on this thread
  void idle(Lock& lock, Device& device, bool& spun);
  void spin(Lock& lock, Device& device);
  void watch_window(Lock& lock, Device::Queue& queue);
  void pass_watch_on(Device& device);
  void wake_anyone(Device& device);

  // --- wait.cpp
  // Returns and throws without the lock, because it takes back the host language's lock at the end.
  bool block(Lock& lock, RankedCondition& condition, Deadline deadline, const std::function<bool()>& done,
             Device* returns_to = nullptr);
  // A waiting thread runs a step of the device's first task, if that is short, or spins while others work. False: it
  // has found nothing to do.
  bool take_part(Lock& lock, Device& device);
  bool may_step(const Device& device) const;
  bool spin_for_change(Lock& lock, const Device& device);
  void hand_over(Device& device);  // this thread does not return: workers look at the queue
  void leave_to_workers(Device& device);  // the same without the lock
  void start_missing_workers(Lock& lock);  // throws, without the lock, if the system starts none
  void replace_this_worker(Lock& lock);    // likewise
  [[noreturn]] static void refuse_to_wait(Device& device);  // no thread runs the device's tasks; without the lock
  void refuse_own_value(const Storage& wanted) const;
  bool has_task_slots() const;

  // --- memory_wait.cpp
  // Measures the scratch memory of each task's launch if a memory limit is set. Without the lock: the tasks are still
  // `pinned`.
  void measure_scratch(const Tasks& tasks);
  // Whether the task may allocate what it needs now; until `place` (which takes the lock), its reservation counts as
  // allocated.
  bool reserve(Task& task);
  void place(Task& task, bool has_memory);
  // Whether all tasks before `end` could still run in order if `bytes` of the device were allocated now.
  bool can_spare(Device& device, std::size_t bytes, const Task* end) const;
  void park(Task* task);
  void unpark();                 // the oldest parked task of each device tries again
  bool can_free_memory() const;  // a task runs, or is about to
  bool wait_for_memory(Device& device, const std::function<bool()>& take);  // without the lock

  Scheduler();

  Window* window_ = nullptr;
  Mutex mutex_;
  RankedCondition value_done_, idle_done_, slots_freed_, paused_done_;
  int idle_waiters_ = 0, slot_waiters_ = 0;
  std::atomic<std::int64_t> in_flight_{0};
  std::atomic<double> in_flight_bytes_{0};
  std::atomic<std::uint64_t> ended_{0};  // tasks; watched by spinning waiters
  std::atomic<int> user_tasks_{0};  // of those in flight, whose operation calls code of the script
  int running_ = 0;        // threads inside a task, workers and callers
  int inline_callers_ = 0;  // threads that still have inline tasks to run
  int sleeping_ = 0;       // workers of all devices
  bool paused_ = false;    // set by fork(): no thread starts a chunk
  bool stopped_ = false;
  std::atomic<bool> halted_{false};  // stopped_ or paused_
  std::vector<Task*> outside_;  // whose chunk is inside an Outside
  bool watching_ = false;  // a worker watches the window
  std::uint64_t watched_ = 0;  // operations recorded when it began to
  bool watch_owed_ = false;  // the window has no watcher and needs one: the next sleeping worker must be woken
  std::vector<Device*> devices_;
  Task *oldest_ = nullptr, *newest_ = nullptr;  // the tasks in flight, as a list in the order of submission
  std::uint64_t submitted_ = 0;

  static constexpr auto kSignalPoll = std::chrono::milliseconds(50);
  static constinit thread_local Outside* outside_of_thread;  // the host-language code that this thread runs
  // Ended tasks, deleted after this thread has unlocked, because that may call foreign code.
  static thread_local Tasks finished_tasks;
};

[[noreturn]] void refuse_memory(const Storage& storage, bool injected);

// From now on the n-th task, or request for memory, fails (0: none does). For tests, and for OWL_FAULT.
OWL_MODULE_API void set_fault(std::int64_t alloc, std::int64_t op);

}  // namespace owl
