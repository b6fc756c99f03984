#include "runtime/scheduler.h"

#include <new>

#include "backend/cpu/denormals.h"
#include "base/env.h"
#include "runtime/counters.h"
#include "runtime/engine.h"
#include "runtime/hooks.h"

namespace owl {

namespace {

// What a caller runs itself instead of handing it to a worker: a hand-over costs about as much.
constexpr double kTinyNs = 4'000;
constexpr double kInlineBudgetNs = 100'000;  // ... at most so much in one go
// How far a script may run ahead of the devices.
constexpr std::int64_t kMaxTasksInFlight = 512;
constexpr double kMaxBytesInFlight = 2e9;
constexpr auto kSignalPoll = std::chrono::milliseconds(50);
constexpr int kSpins = 2'000;  // about 50 us: the gap between two stages of a task, or two tasks of a chain

double bytes_of(const Task& task) {
  double bytes = 0;
  for (auto& o : task.outputs) bytes += static_cast<double>(o.storage->bytes);
  return bytes;
}

std::shared_ptr<const Failure> failure_of(const Task& task, Failure::Kind kind, std::string message) {
  auto f = std::make_shared<Failure>();
  f->kind = kind;
  f->message = std::move(message);
  f->op = task.name;
  f->source = task.source;
  f->sequence = task.sequence;
  return f;
}

// The exception being handled, as a value.
std::shared_ptr<const Failure> caught(const Task& task) {
  using Kind = Failure::Kind;
  try {
    throw;
  } catch (const OutOfMemoryError& e) {
    return failure_of(task, Kind::kOutOfMemory, e.what());
  } catch (const std::bad_alloc&) {
    return failure_of(task, Kind::kOutOfMemory, std::string(task.name) + ": the host is out of memory");
  } catch (const DeviceError& e) {
    return failure_of(task, Kind::kDevice, e.what());
  } catch (const NaNError& e) {
    return failure_of(task, Kind::kNaN, e.what());
  } catch (const ShapeError& e) {
    return failure_of(task, Kind::kShape, e.what());
  } catch (const DTypeError& e) {
    return failure_of(task, Kind::kDType, e.what());
  } catch (const std::exception& e) {
    return failure_of(task, Kind::kOther, e.what());
  } catch (...) {
    return failure_of(task, Kind::kOther, std::string(task.name) + ": unknown exception");
  }
}

// A deliberate failure of the N-th task (OWL_FAULT=op:N), for tests.
void inject_fault(const Task& task) {
  static std::atomic<std::int64_t> started{0};
  const auto n = settings().fault_op;
  if (n && started.fetch_add(1) + 1 == n) throw Error(std::string(task.name) + ": injected fault (OWL_FAULT)");
}

// An operand's memory may become the result's when nothing else can read it any more.
bool can_take_over(const TaskOperand& from, const TaskOperand& to) {
  return from.array.dense && from.offset == 0 && from.storage->bytes == to.storage->bytes &&
         itemsize(from.array.dtype) == itemsize(to.array.dtype) && from.storage->device == to.storage->device &&
         !from.storage->foreign_release && from.storage->data && from.storage->refs() == 1;
}

void take_over(TaskOperand& from, TaskOperand& to) {
  to.storage->device->allocator.move(*from.storage, *to.storage);
  to.array.data = to.storage->data;
  count(counters.in_place);
}

}  // namespace

Scheduler& Scheduler::get() {
  static Scheduler* s = new Scheduler;  // never destroyed: workers and handles may outlive static destruction
  return *s;
}

void Scheduler::register_device(Device* device) {
  std::lock_guard lock(mutex_);
  devices_.push_back(device);
}

// ---- submission

void Scheduler::submit(std::vector<std::unique_ptr<Task>> tasks, std::vector<Task*>* inline_tasks) {
  std::lock_guard lock(mutex_);
  for (auto& owned : tasks) {
    Task* task = owned.release();
    in_flight_.fetch_add(1, std::memory_order_relaxed);
    in_flight_bytes_ += bytes_of(*task);
    for (auto& input : task->inputs) {
      if (Task* producer = input.storage->producer) {
        producer->successors.push_back(task);
        ++task->unfinished_inputs;
      }
    }
    if (task->unfinished_inputs == 0) push_ready(task, inline_tasks);
  }
}

void Scheduler::push_ready(Task* task, std::vector<Task*>* inline_tasks) {
  if (inline_tasks && task->cost_ns <= kTinyNs && task->device->kind == Device::Kind::kCpu) {
    inline_tasks->push_back(task);
    return;
  }
  auto& queue = task->device->queue;
  queue.ready.push_back(task);
  task->device->pushes.fetch_add(1, std::memory_order_relaxed);
  if (queue.workers.empty()) start_workers(*task->device);
  if (queue.sleeping > 0) queue.wake.notify_one();
}

void Scheduler::run_inline(std::vector<Task*>& tasks) {
  if (tasks.empty()) return;
  DenormalsToZero flush_denormals;
  std::unique_lock lock(mutex_);
  double spent = 0;
  // A finished task appends what it made ready; the list grows while it is walked.
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    Task* task = tasks[i];
    if (spent > kInlineBudgetNs || paused_) {
      push_ready(task, nullptr);
      continue;
    }
    spent += task->cost_ns;
    count(counters.inline_tasks);
    ++running_;
    ++task->device->queue.running;
    lock.unlock();
    start_task(*task);
    for (auto& stage : task->launch.stages) {
      for (std::int64_t c = 0; c < stage.chunks && !task->failure; ++c) {
        try {
          stage.body(c);
        } catch (...) {
          task->failure = caught(*task);
        }
      }
    }
    lock.lock();
    --running_;
    --task->device->queue.running;
    finish(lock, task, &tasks);
  }
  if (paused_ && running_ == 0) paused_done_.notify_all();
}

// ---- running

// Binds memory and asks the backend for stages; whatever goes wrong becomes the task's failure.
void Scheduler::start_task(Task& task) {
  task.started = true;
  task.launch.device = task.device;
  try {
    for (auto& in : task.inputs) {
      if (in.storage->state.load(std::memory_order_acquire) == Storage::State::kFailed) {
        task.failure = in.storage->failure;
        return;
      }
    }
    bool wanted = false;  // by a handle, or by a task that waits for it
    for (auto& out : task.outputs) wanted |= out.storage->refs() > 1;
    if (!wanted) {
      count(counters.tasks_skipped);
      return;
    }
    inject_fault(task);
    for (auto& in : task.inputs) {
      in.array.data = static_cast<std::byte*>(in.storage->data) +
                      in.offset * static_cast<std::int64_t>(itemsize(in.array.dtype));
    }
    for (auto& out : task.outputs) {
      if (task.program) {
        for (std::size_t i = 0; i < task.inputs.size() && !out.array.data; ++i)
          if (task.program->inputs[i].dense && can_take_over(task.inputs[i], out)) take_over(task.inputs[i], out);
      } else if (task.op->in_place >= 0) {
        auto& in = task.inputs[static_cast<std::size_t>(task.op->in_place)];
        if (can_take_over(in, out)) take_over(in, out);
      }
      if (!out.array.data && task.device->backend->computes()) {
        allocate_for_task(*out.storage);
        out.array.data = out.storage->data;
      }
      count(counters.buffers_written);
      count(counters.bytes_written, static_cast<std::int64_t>(out.storage->bytes));
    }
    task.device->backend->launch(task, task.launch);
    count(counters.kernels);
    if (settings().log_run) log_line("run " + std::string(task.name) + " on device " + std::to_string(task.device->id));
  } catch (...) {
    task.failure = caught(task);
    task.launch.stages.clear();
  }
}

// Lock held. Finds the next stage that has chunks: runs it here when it is a single one, hands it out otherwise.
void Scheduler::advance(std::unique_lock<std::mutex>& lock, Task* task) {
  auto& stages = task->launch.stages;
  while (true) {
    while (task->stage < stages.size() && (stages[task->stage].chunks == 0 || task->failure)) ++task->stage;
    if (task->stage == stages.size()) return finish(lock, task, nullptr);
    auto& stage = stages[task->stage];
    if (stage.chunks == 1 && !paused_) {  // paused: back to the queue, where a forked child finds it
      run_chunk(lock, task, stage, 0);
      ++task->stage;
      continue;
    }
    task->next_chunk = task->done_chunks = 0;
    auto& queue = task->device->queue;
    queue.ready.push_front(task);
    task->device->pushes.fetch_add(1, std::memory_order_relaxed);
    for (std::int64_t i = 1; i < std::min<std::int64_t>(stage.chunks, queue.sleeping + 1); ++i) queue.wake.notify_one();
    return;
  }
}

void Scheduler::run_chunk(std::unique_lock<std::mutex>& lock, Task* task, Launch::Stage& stage, std::int64_t chunk) {
  // A task that has failed only has its chunks counted down.
  if (!task->failure) {
    enter(*task->device);
    std::shared_ptr<const Failure> failure;
    lock.unlock();
    try {
      stage.body(chunk);
    } catch (...) {
      failure = caught(*task);
    }
    lock.lock();
    if (failure && !task->failure) task->failure = failure;
    leave(*task->device);
  }
}

void Scheduler::enter(Device& device) {
  ++running_;
  ++device.queue.running;
}

void Scheduler::leave(Device& device) {
  --device.queue.running;
  if (--running_ == 0 && paused_) paused_done_.notify_all();
}

// Lock held; the device's queue is not empty.
void Scheduler::step(std::unique_lock<std::mutex>& lock, Device& device) {
  Task* task = device.queue.ready.front();
  if (!task->started) {
    device.queue.ready.pop_front();
    enter(device);
    lock.unlock();
    start_task(*task);
    lock.lock();
    leave(device);
    return advance(lock, task);
  }
  auto& stage = task->launch.stages[task->stage];
  const auto chunk = task->next_chunk++;
  if (task->next_chunk == stage.chunks) device.queue.ready.pop_front();
  run_chunk(lock, task, stage, chunk);
  if (++task->done_chunks == stage.chunks) {
    ++task->stage;
    advance(lock, task);
  }
}

// Lock held on entry and return. Publishes the results and lets successors go.
void Scheduler::finish(std::unique_lock<std::mutex>& lock, Task* task, std::vector<Task*>* inline_tasks) {
  std::optional<Storage::DeferForeign> deferred(std::in_place);
  bool waited = false;
  for (auto& out : task->outputs) {
    out.storage->producer = nullptr;
    waited |= out.storage->waited;
    if (task->failure) {
      out.storage->failure = task->failure;
      Engine::get().fail(out.storage);  // before anybody can see that it is done
    }
    out.storage->state.store(task->failure ? Storage::State::kFailed : Storage::State::kReady,
                             std::memory_order_release);
  }
  for (Task* next : task->successors)
    if (--next->unfinished_inputs == 0) push_ready(next, inline_tasks);
  in_flight_bytes_ = in_flight_bytes_ - bytes_of(*task);
  // Under the lock, so that whoever starts a task later sees whether it may take over this memory.
  task->inputs.clear();
  task->outputs.clear();
  const auto left = in_flight_.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (waited) value_done_.notify_all();
  if (left == 0 && idle_waiters_) idle_done_.notify_all();
  if (room_waiters_ && has_room()) room_done_.notify_all();
  auto* device = task->device;
  if (device->queue.starved) device->queue.memory_freed.notify_all();
  lock.unlock();
  for (auto& [data, bytes] : task->launch.scratch_blocks) device->allocator.free(data, bytes);
  delete task;
  deferred.reset();
  lock.lock();
}

// ---- workers

void Scheduler::start_workers(Device& device) {
  for (int i = 0; i < device.threads; ++i) device.queue.workers.emplace_back([this, &device] { work(device); });
}

void Scheduler::work(Device& device) {
  DenormalsToZero flush_denormals;
  std::unique_lock lock(mutex_);
  bool spun = false;
  while (!stopped_) {
    if (!device.queue.ready.empty() && !paused_) {
      spun = false;
      if (!watching_ && (sleeping_ > 0 || watch_owed_)) pass_watch_on(device);
      step(lock, device);
    } else {
      idle(lock, device, spun);
    }
  }
}

// This thread no longer looks after the window; one that sleeps, on whichever device, can. What is in the window
// already must not be forgotten: perhaps nothing more will be recorded.
void Scheduler::pass_watch_on(Device& device) {
  auto& engine = Engine::get();
  if (engine.idle_us() < 0) return;
  if (!watch_owed_) {
    if (unwatched.exchange(true, std::memory_order_seq_cst) || engine.window_empty()) return;
    unwatched.store(false, std::memory_order_seq_cst);
    watch_owed_ = true;
  }
  wake_anyone(device);
}

// Lock held. Prefers the device's own workers to another's, and those who sleep to those not started yet. Where all
// are busy, the first to be done looks at the window by itself.
void Scheduler::wake_anyone(Device& device) {
  if (device.queue.workers.empty()) return start_workers(device);
  if (device.queue.sleeping > 0) return device.queue.wake.notify_one();
  for (Device* d : devices_)
    if (d->queue.sleeping > 0) return d->queue.wake.notify_one();
  for (Device* d : devices_)
    if (d->queue.workers.empty()) return start_workers(*d);
}

void Scheduler::idle(std::unique_lock<std::mutex>& lock, Device& device, bool& spun) {
  auto& engine = Engine::get();
  auto& queue = device.queue;
  if (!spun && !paused_) {  // the next task is often a few microseconds away, and waking up costs more than that
    spun = true;
    const auto seen = device.pushes.load(std::memory_order_relaxed);
    lock.unlock();
    for (int i = 0; i < kSpins && device.pushes.load(std::memory_order_relaxed) == seen; ++i) cpu_relax();
    lock.lock();
    return;
  }
  ++queue.sleeping;
  ++sleeping_;
  if (watching_ || engine.idle_us() < 0 || paused_) {
    queue.wake.wait(lock);
  } else if (engine.window_empty()) {
    watch_owed_ = false;
    unwatched.store(true, std::memory_order_seq_cst);
    if (engine.window_empty()) queue.wake.wait(lock);  // else it was filled just now: look again
  } else {  // watch the window: when the script stays quiet, plan what it left there
    watching_ = true;
    watch_owed_ = false;
    unwatched.store(false, std::memory_order_seq_cst);
    const auto seen = engine.recorded();
    queue.wake.wait_for(lock, std::chrono::microseconds(engine.idle_us()));
    if (engine.idle_us() >= 0 && engine.recorded() == seen && queue.ready.empty() && !paused_ && !stopped_) {
      lock.unlock();
      engine.flush(0, false);
      lock.lock();
    }
    watching_ = false;
    watch_owed_ = !engine.window_empty();  // for the case that work keeps this thread from coming back to it
  }
  --queue.sleeping;
  --sleeping_;
  spun = false;
}

void Scheduler::wake_watcher(Device& device) {
  std::lock_guard lock(mutex_);
  if (watching_ || !unwatched.load() || stopped_) return;
  unwatched.store(false);  // a worker that is busy now looks at the window when it is done
  watch_owed_ = true;      // ... and one that finds work instead passes the watch on
  wake_anyone(device);
}

void Scheduler::settings_changed() {
  std::unique_lock lock(mutex_);
  unwatched.store(true);
  for (Device* d : devices_) d->queue.wake.notify_all();
  // Once idle workers have been told to leave the window alone, none may be about to take it.
  while (watching_ && Engine::get().idle_us() < 0) {
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
  }
}

void Scheduler::shutdown() {
  std::vector<std::thread> workers;
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    for (Device* d : devices_) {
      for (auto& w : d->queue.workers) workers.push_back(std::move(w));
      d->queue.workers.clear();
      d->queue.wake.notify_all();
      d->queue.memory_freed.notify_all();
    }
    value_done_.notify_all();
    idle_done_.notify_all();
    room_done_.notify_all();
  }
  for (auto& w : workers) w.join();
}

// ---- waiting

bool Scheduler::block(std::unique_lock<std::mutex>& lock, std::condition_variable& cv, Deadline deadline,
                      const std::function<bool()>& done) {
  if (done()) {
    lock.unlock();
    return true;
  }
  for (Device* d : devices_)  // after a fork the child has no workers yet
    if (!d->queue.ready.empty() && d->queue.workers.empty() && !stopped_) start_workers(*d);
  lock.unlock();
  Blocking blocking;  // lets go of the host language's lock
  lock.lock();
  bool finished = true;
  while (!done()) {
    if (stopped_) {
      lock.unlock();
      throw Error("owl has been shut down; the value was not computed");
    }
    auto until = std::chrono::steady_clock::now() + kSignalPoll;
    if (deadline && *deadline < until) until = *deadline;
    cv.wait_until(lock, until);
    const auto now = std::chrono::steady_clock::now();
    if (now < until || done()) continue;
    if (deadline && now >= *deadline) {
      finished = false;
      break;
    }
    lock.unlock();
    if (blocking.interrupted()) throw Interrupted();
    lock.lock();
  }
  lock.unlock();
  return finished;
}

bool Scheduler::wait_value(Storage& storage, Deadline deadline) {
  if (storage.state.load(std::memory_order_acquire) != Storage::State::kPending) return true;
  std::unique_lock lock(mutex_);
  storage.waited = true;
  return block(lock, value_done_, deadline,
               [&] { return storage.state.load(std::memory_order_relaxed) != Storage::State::kPending; });
}

void Scheduler::wait_idle() {
  std::unique_lock lock(mutex_);
  Counted waiting(idle_waiters_, lock);
  block(lock, idle_done_, {}, [&] { return in_flight_.load() == 0; });
}

bool Scheduler::has_room() const {
  return in_flight_.load(std::memory_order_relaxed) <= kMaxTasksInFlight / 2 && in_flight_bytes_ <= kMaxBytesInFlight;
}

void Scheduler::wait_for_room() {
  if (in_flight_.load(std::memory_order_relaxed) <= kMaxTasksInFlight && in_flight_bytes_ <= kMaxBytesInFlight) return;
  std::unique_lock lock(mutex_);
  Counted waiting(room_waiters_, lock);
  block(lock, room_done_, {}, [&] { return has_room() || in_flight_.load() == 0; });
}

// ---- fork

void Scheduler::before_fork() {
  std::unique_lock lock(mutex_);
  paused_ = true;
  while (running_ > 0) paused_done_.wait(lock);
  lock.release();  // stays locked across the fork
}

void Scheduler::after_fork_parent() {
  paused_ = false;
  for (Device* d : devices_) d->queue.wake.notify_all();
  mutex_.unlock();
}

void Scheduler::after_fork_child() {
  // The workers and waiters of the parent do not exist here: their condition variables start anew.
  for (auto* cv : {&value_done_, &idle_done_, &room_done_, &paused_done_}) new (cv) std::condition_variable;
  idle_waiters_ = room_waiters_ = 0;
  for (Device* d : devices_) {
    auto& q = d->queue;
    new (&q.wake) std::condition_variable;
    new (&q.memory_freed) std::condition_variable;
    new (&q.workers) std::vector<std::thread>;  // not destroyed: a joinable thread would end the process
    q.sleeping = q.running = q.starved = 0;
    if (d->kind == Device::Kind::kGpu) d->lost_in_fork = true;
  }
  running_ = sleeping_ = 0;
  paused_ = watching_ = watch_owed_ = false;
  unwatched.store(true);
  mutex_.unlock();
}

// ---- memory

bool Scheduler::wait_for_memory(Device& device, const std::function<bool()>& take) {
  std::unique_lock lock(mutex_);
  auto& q = device.queue;
  // Somebody else's task may give memory back when it ends; if all who run wait like this, nobody will.
  while (q.running - q.starved > 1 && !stopped_ && !paused_) {
    ++q.starved;
    q.memory_freed.wait_for(lock, kSignalPoll);
    --q.starved;
    lock.unlock();
    if (take()) return true;
    lock.lock();
  }
  return false;
}

void with_memory(Device& device, std::size_t bytes, const std::string& what, const std::function<bool()>& take) {
  static std::atomic<std::int64_t> requests{0};
  const auto fault = settings().fault_alloc;
  const bool injected = fault && requests.fetch_add(1) + 1 == fault;
  if (!injected && (take() || Scheduler::get().wait_for_memory(device, take))) return;
  const auto stats = device.allocator.stats();
  const auto holders = device.allocator.largest_holders(10);
  throw OutOfMemoryError(what + ": no memory for " + std::to_string(bytes) + " bytes on device " +
                         std::to_string(device.id) + (injected ? " (injected fault, OWL_FAULT)" : "") + ": " +
                         std::to_string(stats.allocated) + " bytes are in use" +
                         (stats.limit ? ", the limit is " + std::to_string(stats.limit) : std::string()) +
                         "; drop arrays, use smaller ones, or raise the limit (owl.set_memory_limit)" +
                         (holders.empty() ? "" : ". The largest holders: " + holders));
}

void allocate_for_task(Storage& storage) {
  with_memory(*storage.device, storage.bytes, storage.op + std::string(" ") + storage.shape.str(),
              [&] { return storage.device->allocator.allocate(storage); });
}

void* Launch::scratch(std::size_t bytes) {
  void* data = nullptr;
  with_memory(*device, bytes, "scratch memory", [&] { return (data = device->allocator.allocate(bytes)) != nullptr; });
  scratch_blocks.emplace_back(data, bytes);
  return data;
}

}  // namespace owl
