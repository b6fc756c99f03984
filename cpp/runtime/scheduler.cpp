#include "runtime/scheduler.h"

#include <pthread.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <new>
#include <system_error>

#include "backend/cpu/denormals.h"
#include "base/env.h"
#include "base/counters.h"
#include "runtime/engine.h"
#include "runtime/faults.h"
#include "base/hooks.h"
#include "runtime/profile.h"
#include "runtime/queue.h"

namespace owl {

namespace {

// What a caller runs itself instead of handing it to a worker: a hand-over costs about as much.
constexpr double kTinyNs = 4'000;
constexpr double kInlineBudgetNs = 100'000;  // ... at most so much in one go
// How far a script may run ahead of the devices.
constexpr std::int64_t kMaxTasksInFlight = 512;
constexpr double kMaxBytesInFlight = 2e9;
constexpr int kSpins = 2'000;  // about 50 us: the gap between two stages of a task, or two tasks of a chain

double bytes_of(const Task& task) {
  double bytes = 0;
  for (auto& o : task.outputs) bytes += static_cast<double>(o.storage->bytes);
  return bytes;
}

// The exception being handled, as a value. It is the task's kernel's, or that of the operation whose result got no memory.
std::shared_ptr<const Failure> caught(const Task& task, const Storage* result = nullptr) {
  return failure_of(std::current_exception(), result ? result->op : task.name, result ? result->source : task.source,
                    task.sequence);
}

void inject_fault(const Task& task) {
  if (Faults::due(faults().op)) throw Error(std::string(task.name) + ": injected fault (OWL_FAULT)");
}

bool has_failed(const TaskOperand& in) { return in.storage->failed(); }

// An operand's memory may become the result's when nothing else can read it any more.
bool can_take_over(const Task& task, const TaskOperand& from, const TaskOperand& to) {
  return may_take_over(task, from, to) && !from.storage->foreign_release && from.storage->data &&
         from.storage->refs() == 1;
}

void take_over(TaskOperand& from, TaskOperand& to) {
  to.storage->device->allocator.move(*from.storage, *to.storage);
  to.array.data = to.storage->data;
  count(counters.in_place);
}

}  // namespace

thread_local std::vector<std::unique_ptr<Task>> Scheduler::finished_tasks;

Scheduler::Scheduler() {
#ifdef PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP
  // The mutex is held for moments, by threads that meet often: who finds it taken looks again before it sleeps.
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

// ---- submission

void Scheduler::submit(std::vector<std::unique_ptr<Task>> tasks, std::vector<Task*>* inline_tasks) {
  std::vector<std::pair<Device*, std::shared_ptr<int>>> batches;
  const auto measured = measure_scratch(tasks);
  std::lock_guard lock(mutex_);
  for (Task* task : measured) task->on_trial = false;
  for (auto& owned : tasks) {
    Task* task = owned.release();
    task->order = ++submitted_;
    if (task->device->backend->is_async()) {
      auto batch = std::ranges::find(batches, task->device, &std::pair<Device*, std::shared_ptr<int>>::first);
      if (batch == batches.end()) batch = batches.emplace(batch, task->device, std::make_shared<int>(0));
      task->batch = batch->second;
      ++*task->batch;
    }
    in_flight_.fetch_add(1, std::memory_order_relaxed);
    in_flight_bytes_ += bytes_of(*task);
    task->older = newest_;
    (newest_ ? newest_->newer : oldest_) = task;
    newest_ = task;
    for (auto& input : task->inputs) {
      if (Task* producer = input.storage->producer) {
        producer->successors.push_back(task);
        ++task->unfinished_inputs;
      }
    }
    if (task->unfinished_inputs == 0) push_ready(task, inline_tasks);
  }
  if (inline_tasks && !inline_tasks->empty()) ++inline_callers_;
}

void Scheduler::give_up(Ref<Storage> value) {
  Storage::DeferForeign deferred;
  std::vector<Ref<Storage>> values;  // here and in their tasks only, perhaps
  values.push_back(std::move(value));
  std::lock_guard lock(mutex_);
  while (!values.empty()) {
    const auto given_up = std::move(values.back());
    values.pop_back();
    Task* task = given_up->producer;
    if (!task || task->on_trial || task->threads > 0 || task->started) continue;  // threads first: they set `started`
    const auto is_wanted = [&](const TaskOperand& out) {
      return out.storage->refs() > (out.storage == given_up ? 2 : 1);
    };
    if (std::ranges::any_of(task->outputs, is_wanted)) continue;
    for (auto& in : task->inputs)
      if (!in.storage->ready() && std::ranges::find(values, in.storage) == values.end()) values.push_back(in.storage);
    task->inputs.clear();
    task->given_up = true;
  }
}

void Scheduler::push_ready(Task* task, std::vector<Task*>* inline_tasks, bool taken_here) {
  if (inline_tasks && task->cost_ns <= kTinyNs && task->device->kind == Device::Kind::kCpu) {
    inline_tasks->push_back(task);
    return;
  }
  make_ready(task, false, taken_here);
}

void Scheduler::make_ready(Task* task, bool first, bool taken_here) {
  auto& queue = *task->device->queue;
  if (first) {
    queue.ready.push_front(task);
  } else {
    // In the order of recording, behind tasks that have chunks left: what makes a value runs close to what uses it up,
    // and memory holds few values that only wait.
    auto place = queue.ready.end();
    while (place != queue.ready.begin() && !(*std::prev(place))->started && (*std::prev(place))->sequence > task->sequence)
      --place;
    queue.ready.insert(place, task);
  }
  if (!taken_here || queue.ready.size() > 1) wake_for(*task->device, 1);
}

void Scheduler::wake_for(Device& device, std::int64_t tasks) {
  auto& queue = *device.queue;
  device.pushes.fetch_add(1, std::memory_order_relaxed);
  if (queue.workers.empty()) start_workers(device);
  for (; tasks > 0 && queue.waking < queue.sleeping; --tasks, ++queue.waking) queue.wake.notify_one();
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
    enter(*task);
    bool has_memory = reserve(*task);
    if (has_memory) {
      Unlocked unlocked(lock);
      profile::Span span(*task);
      has_memory = start_task(*task, false);
      for (auto& stage : task->launch.stages) {
        for (std::int64_t c = 0; c < stage.chunks && !task->failure; ++c) {
          try {
            stage.body(c);
          } catch (...) {
            task->failure = caught(*task);
          }
        }
      }
    }
    leave(*task);
    if (has_memory) finish(task, &tasks);
    else make_ready(task, true);
  }
  --inline_callers_;
  unpark();
  if (paused_ && running_ == 0) paused_done_.notify_all();
  lock.unlock();
  finished_tasks.clear();
}

// ---- running

bool Scheduler::start_task(Task& task, bool last_resort) {
  const bool has_memory = bind_and_launch(task, last_resort);
  if (task.reserved > 0 || last_resort) place(task, has_memory);
  return has_memory;
}

// Binds memory and asks the backend for stages; whatever goes wrong becomes the task's failure.
bool Scheduler::bind_and_launch(Task& task, bool last_resort) {
  const Storage* wants_memory = nullptr;
  task.started = true;
  task.launch.device = task.device;
  task.launch.task = &task;
  try {
    task.device->require_own_process();
    const bool failed = std::ranges::any_of(task.inputs, has_failed);
    if (failed && !spread_failures(task)) return true;
    bool wanted = false;  // by a handle, or by a task that waits for it
    for (auto& out : task.outputs) wanted |= !out.failure && out.storage->refs() > 1;
    if (!wanted || task.given_up) {
      count(counters.tasks_skipped);
      return true;
    }
    if (!task.bound) inject_fault(task);
    for (auto& in : task.inputs) {
      if (task.bound) break;  // an earlier try may have made this memory a result's
      void* data = in.storage->data;
      if (failed && !data && has_failed(in) && task.device->backend->computes())  // for results that nobody will see
        task.device->backend->clear(data = task.launch.scratch(in.storage->bytes), in.storage->bytes);
      in.array.data = static_cast<std::byte*>(data) + in.offset * static_cast<std::int64_t>(itemsize(in.array.dtype));
    }
    task.bound = true;
    for (auto& out : task.outputs) {
      if (out.array.data) continue;  // from an earlier try
      for (auto& in : task.inputs)
        if (can_take_over(task, in, out)) {
          take_over(in, out);
          break;
        }
      if (!out.array.data && task.device->backend->computes()) {
        wants_memory = out.storage.get();
        const bool injected = Faults::due(faults().alloc);
        if (injected || !take_for_result(*out.storage, task.op && task.op->copies_in)) {
          if (!injected && !last_resort) {
            task.started = false;
            return false;
          }
          refuse_memory(*out.storage, injected);
        }
        wants_memory = nullptr;
        out.array.data = out.storage->data;
      }
      count(counters.buffers_written);
      count(counters.bytes_written, static_cast<std::int64_t>(out.storage->bytes));
    }
    std::optional<profile::Span> span;  // on the CPU its chunks have theirs
    if (task.device->backend->is_async()) span.emplace(task);
    task.device->backend->launch(task, task.launch);
    count(counters.kernels);
    if (settings().log_run) log_line("run " + std::string(task.name) + " on device " + std::to_string(task.device->id));
  } catch (...) {
    task.failure = caught(task, wants_memory);
    task.launch.stages.clear();
  }
  return true;
}

// Lock held, nobody is inside the task. Runs stages of one chunk here; hands out the next that has several.
void Scheduler::advance(std::unique_lock<std::mutex>& lock, Task* task) {
  const auto& stages = task->launch.stages;
  while (true) {
    while (task->stage < stages.size() && (stages[task->stage].chunks == 0 || task->failure)) ++task->stage;
    if (task->stage == stages.size()) return finish(task, nullptr);
    const auto chunks = stages[task->stage].chunks;
    if (chunks > 1 || halted_) {  // halted: back to the queue, where a forked child finds it
      task->next_chunk = 0;
      task->device->queue->ready.push_front(task);
      return wake_for(*task->device, chunks - 1);  // one is for this thread
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

void Scheduler::run_chunks(Task& task, const Launch::Stage& stage) {
  while (!halted_) {
    const auto chunk = task.next_chunk.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= stage.chunks) return;
    try {
      profile::Span span(task, chunk, stage.chunks);
      stage.body(chunk);
    } catch (...) {
      auto failure = caught(task);
      task.next_chunk = stage.chunks;
      std::lock_guard lock(mutex_);
      if (!task.failure) task.failure = std::move(failure);
    }
  }
}

void Scheduler::enter(Task& task) {
  ++running_;
  ++task.device->queue->running;
  ++task.threads;
}

void Scheduler::leave(Task& task) {
  --task.threads;
  --task.device->queue->running;
  if (--running_ == 0 && paused_) paused_done_.notify_all();
}

constinit thread_local Scheduler::Outside* Scheduler::outside_of_thread = nullptr;

Scheduler::Outside::Outside(Task& task) : task_(task) {
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
void Scheduler::step(std::unique_lock<std::mutex>& lock, Device& device) {
  auto& ready = device.queue->ready;
  Task* task = ready.front();
  if (!task->started) {
    ready.pop_front();
    task->last_resort = task->last_resort && !can_free_memory();
    if (!task->last_resort && !reserve(*task)) return park(task);
    enter(*task);
    bool has_memory;
    {
      Unlocked unlocked(lock);
      has_memory = start_task(*task, task->last_resort);
      if (has_memory) run_alone(*task);
    }
    leave(*task);
    if (!has_memory) return park(task);
    unpark();
    return advance(lock, task);
  }
  const auto& stage = task->launch.stages[task->stage];
  enter(*task);
  ++task->helpers;
  {
    Unlocked unlocked(lock);
    run_chunks(*task, stage);
  }
  leave(*task);
  --task->helpers;
  if (task->next_chunk < stage.chunks) return;  // halted
  if (const auto place = std::ranges::find(ready, task); place != ready.end()) ready.erase(place);
  if (task->helpers > 0) return;  // the last to leave goes on
  ++task->stage;
  advance(lock, task);
}

// Lock held. Publishes the results and lets successors go.
void Scheduler::finish(Task* task, std::vector<Task*>* inline_tasks) {
  bool waited = false;
  for (auto& out : task->outputs) {
    out.storage->producer = nullptr;
    waited |= out.storage->waited;
    const auto& failure = task->failure ? task->failure : out.failure;
    if (failure) out.storage->fail(failure);
    else out.storage->state.store(Storage::State::kReady, std::memory_order_release);
  }
  for (Task* next : task->successors)
    if (--next->unfinished_inputs == 0)  // a worker goes on with its own device's
      push_ready(next, inline_tasks, !inline_tasks && next->device == task->device);
  in_flight_bytes_ = in_flight_bytes_ - bytes_of(*task);
  for (auto& [storage, layout] : task->launch.packed_operands)
    storage->device->allocator.unpack(*storage, layout, !task->failure);
  // Under the lock, so that whoever starts a task later sees whether it may take over this memory. Foreign memory waits
  // until the lock is free.
  std::erase_if(task->inputs, [](const TaskOperand& in) { return !in.storage->foreign_release; });
  task->outputs.clear();
  const auto left = in_flight_.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (waited) value_done_.notify_all();
  if (left == 0 && idle_waiters_) idle_done_.notify_all();
  if (room_waiters_ && has_room()) room_done_.notify_all();
  (task->older ? task->older->newer : oldest_) = task->newer;
  (task->newer ? task->newer->older : newest_) = task->older;
  auto* device = task->device;
  if (task->batch && --*task->batch == 0) device->queue->batch_done = true;
  for (auto& [data, bytes] : task->launch.scratch_blocks) device->allocator.free(data, bytes);
  if (device->queue->memory_waiters) device->queue->memory_freed.notify_all();
  unpark();
  finished_tasks.emplace_back(task);
}

// ---- workers

bool Scheduler::start_worker(Device& device) {
  try {
    device.queue->workers.emplace_back([this, &device] { work(device); });
    return true;
  } catch (const std::system_error&) {  // the next need for it tries again; block() tells the script where none runs
    return false;
  }
}

void Scheduler::start_workers(Device& device) {
  for (int i = 0; i < device.threads && start_worker(device); ++i) {
  }
}

void Scheduler::refuse_to_wait(Device& device) {
  std::string limits;
  const auto name_limit = [&](auto which, const char* what, const char* command) {
    rlimit limit{};
    if (getrlimit(which, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
      limits += (limits.empty() ? "" : ", ") + std::string(what) + " is " + std::to_string(limit.rlim_cur) + " (" + command + ")";
  };
  name_limit(RLIMIT_NPROC, "the limit of this user's processes and threads", "ulimit -u");
  name_limit(RLIMIT_AS, "the limit of address space in bytes", "ulimit -v");
  std::string pids;
  if (std::ifstream("/sys/fs/cgroup/pids.max") >> pids && pids != "max")
    limits += (limits.empty() ? "" : ", ") + std::string("the limit of this container's tasks is ") + pids + " (cgroup pids.max)";
  throw DeviceError("device " + std::to_string(device.id) + " (" + device.name +
                    "): the system starts no thread for it, so nothing can be computed; " +
                    (limits.empty() ? "no limit of this process is set, so the machine's own is reached" : limits));
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
  if (device.queue->workers.empty()) return start_workers(device);
  if (device.queue->sleeping > 0) return device.queue->wake.notify_one();
  for (Device* d : devices_)
    if (d->queue->sleeping > 0) return d->queue->wake.notify_one();
  for (Device* d : devices_)
    if (d->queue->workers.empty()) return start_workers(*d);
}

void Scheduler::idle(std::unique_lock<std::mutex>& lock, Device& device, bool& spun) {
  auto& engine = Engine::get();
  auto& queue = *device.queue;
  if (!spun && device.backend->is_async()) {
    Unlocked unlocked(lock);
    device.backend->submit();
  }
  if (!spun && !paused_) {  // the next task is often a few microseconds away, and waking up costs more than that
    spun = true;
    const auto seen = device.pushes.load(std::memory_order_relaxed);
    Unlocked unlocked(lock);
    profile::Span span("wait");
    for (int i = 0; i < kSpins && device.pushes.load(std::memory_order_relaxed) == seen; ++i) cpu_relax();
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
  queue.waking = std::max(0, queue.waking - 1);
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
  for (Device* d : devices_) d->queue->wake.notify_all();
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
    halted_ = stopped_ = true;
    for (Device* d : devices_) {
      for (auto& w : d->queue->workers) workers.push_back(std::move(w));
      d->queue->workers.clear();
      d->queue->wake.notify_all();
      d->queue->memory_freed.notify_all();
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
  for (Device* d : devices_) {  // after a fork the child has no workers yet
    if (d->queue->ready.empty() || !d->queue->workers.empty() || stopped_) continue;
    start_workers(*d);
    if (!d->queue->workers.empty()) continue;
    lock.unlock();
    refuse_to_wait(*d);
  }
  std::optional<Counted> blocked;
  if (outside_of_thread && !stopped_) {  // a worker blocks: another takes its place
    Device* device = outside_of_thread->task_.device;
    blocked.emplace(device->queue->blocked, lock);
    unpark();  // what waited for this thread's memory
    auto& q = *device->queue;
    const auto workers = [&] { return static_cast<int>(q.workers.size()); };
    if (workers() < device->threads + q.blocked && !start_worker(*device) && workers() <= q.blocked) {
      lock.unlock();
      refuse_to_wait(*device);
    }
  }
  lock.unlock();
  profile::Span span("wait");
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

bool Scheduler::wait_value(Storage& storage, Deadline deadline) {
  if (storage.state.load(std::memory_order_acquire) != Storage::State::kPending) return true;
  if (outside_of_thread) Engine::get().with_window([](const auto&) {});  // no plan is half made
  std::unique_lock lock(mutex_);
  if (outside_of_thread) refuse_own_value(storage);
  storage.waited = true;
  return block(lock, value_done_, deadline,
               [&] { return storage.state.load(std::memory_order_relaxed) != Storage::State::kPending; });
}

// Lock held. Code that runs for a task would wait for ever for what that task makes.
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

void Scheduler::wait_idle() {
  if (outside_of_thread)
    throw Error(std::string(outside_of_thread->task_.name) +
                ": wait_for_all inside an operation would wait for that operation itself; wait for single values");
  std::unique_lock lock(mutex_);
  Counted waiting(idle_waiters_, lock);
  block(lock, idle_done_, {}, [&] { return in_flight_.load() == 0; });
}

bool Scheduler::has_room() const {
  return in_flight_.load(std::memory_order_relaxed) <= kMaxTasksInFlight / 2 && in_flight_bytes_ <= kMaxBytesInFlight;
}

void Scheduler::wait_for_room() {
  if (outside_of_thread) return;  // it would wait for its own task too
  if (in_flight_.load(std::memory_order_relaxed) <= kMaxTasksInFlight && in_flight_bytes_ <= kMaxBytesInFlight) return;
  std::unique_lock lock(mutex_);
  Counted waiting(room_waiters_, lock);
  block(lock, room_done_, {}, [&] { return has_room() || in_flight_.load() == 0; });
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

// ---- fork

void Scheduler::before_fork() {
  std::unique_lock lock(mutex_);
  halted_ = paused_ = true;
  while (running_ > 0 || inline_callers_ > 0) paused_done_.wait(lock);
  lock.release();  // stays locked across the fork
}

void Scheduler::after_fork_parent() {
  paused_ = false;
  halted_ = stopped_;
  for (Device* d : devices_) d->queue->wake.notify_all();
  mutex_.unlock();
}

void Scheduler::after_fork_child() {
  // The workers and waiters of the parent do not exist here: their condition variables start anew.
  for (auto* cv : {&value_done_, &idle_done_, &room_done_, &paused_done_}) new (cv) std::condition_variable;
  idle_waiters_ = room_waiters_ = inline_callers_ = 0;
  // Their code of the host language went with them; this thread's own goes on.
  for (Task* task : outside_) {
    if (outside_of_thread && &outside_of_thread->task_ == task) continue;
    task->next_chunk = 0;
    task->device->queue->ready.push_front(task);
  }
  std::erase_if(outside_, [](Task* t) { return !outside_of_thread || &outside_of_thread->task_ != t; });
  for (Device* d : devices_) {
    auto& q = *d->queue;
    new (&q.wake) std::condition_variable;
    new (&q.memory_freed) std::condition_variable;
    new (&q.workers) std::vector<std::thread>;  // not destroyed: a joinable thread would end the process
    q.started_workers = q.sleeping = q.waking = q.running = q.starved = q.blocked = q.memory_waiters = 0;
    if (d->kind == Device::Kind::kGpu) d->lost_in_fork = true;
  }
  running_ = sleeping_ = 0;
  paused_ = watching_ = watch_owed_ = false;
  halted_ = stopped_;
  unwatched.store(true);
  mutex_.unlock();
}

}  // namespace owl
