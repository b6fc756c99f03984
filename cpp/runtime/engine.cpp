#include "runtime/engine.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "backend/cpu/backend.h"
#include "backend/cpu/cost.h"
#include "backend/gpu.h"
#include "base/counters.h"
#include "base/env.h"
#include "base/fork_mutex.h"
#include "graph/record.h"
#include "owl/inspect.h"
#include "plan/cut.h"
#include "plan/explain.h"
#include "plan/planner.h"
#include "runtime/faults.h"
#include "runtime/profile.h"
#include "runtime/scheduler.h"

namespace owl {

namespace {

// Stops the workers when the process ends, before static objects go that kernels use, oneDNN's among them. exit()
// destroys the thread_local objects of its own thread first of all; what std::atexit registers runs after the
// destructors of all statics that were made later. Another thread's end is none of the process.
struct StopAtExit {
  void arm() {}
  ~StopAtExit() {
    if (getpid() == gettid()) shutdown();
  }
};
thread_local StopAtExit stop_at_exit;

// A window of few but large results is cut by bytes; this many of the newest operations stay for fusion.
constexpr std::size_t kWindowBytes = std::size_t{1} << 30;
constexpr std::size_t kKeptWhenLarge = 16;
constexpr std::size_t kCopyPiece = 1 << 20;  // bytes that a thread copies at a time
constexpr std::size_t kHeldWindow = std::size_t{1} << 40;  // operations: a held window

std::size_t bytes_of(const Node& node) { return static_cast<std::size_t>(node.shape.size()) * itemsize(node.dtype); }

bool same_site(const Node& a, const Node& b) {
  return a.op == b.op && a.source.code == b.source.code && a.source.offset == b.source.offset && a.shape == b.shape &&
         a.dtype == b.dtype && a.device == b.device;
}

// How many of the first `most` operations leave the window together. A GPU replays batches that come again, so there a
// batch ends at the next iteration of its loop.
std::size_t cut(const std::vector<Node*>& window, std::size_t most) {
  if (most < window.size() && window[0]->device->backend->is_async())
    for (std::size_t end = most; end > most / 2; --end)
      if (same_site(*window[end], *window[0])) return end;
  return planner::cut(window, most);
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  if (!(file << text).flush()) throw Error("cannot write " + path + ": " + std::strerror(errno));
}

// Dead: no handle can ask for the value, only the window refers to the node, and it is run for its value alone.
bool is_dead(const Node& node) { return node.handles() == 0 && node.refs() == 1 && !node.op->effect; }

bool has_failed(const Node& node) {
  const Storage* storage = node.storage();
  return storage && storage->failed();
}

}  // namespace

void shutdown() {
  Scheduler::get().shutdown();
  try {
    if (profile::on && !settings().profile.empty()) stop_profile();
  } catch (const std::exception& e) {  // the process ends: no caller is left to catch it
    log_line(std::string("OWL_PROFILE: ") + e.what());
  }
}

void set_window(std::size_t count, std::int64_t idle_us) { Engine::get().set_window(count, idle_us); }

Sink& sink() { return Engine::get(); }

Engine& Engine::get() {
  static Engine* engine = new Engine;  // never destroyed: see Scheduler::get
  return *engine;
}

Engine::Engine()
    : window_limit_(static_cast<std::size_t>(settings().window)), idle_us_(settings().idle_us),
      eager_(settings().eager), memory_limit_(static_cast<std::size_t>(settings().memory_limit)) {
  if (!settings().profile.empty()) start_profile(settings().profile);
  Scheduler::get().set_window(*this);
  add_device(cpu::make_device());
  std::atexit([] { shutdown(); });
  pthread_atfork([] { Engine::get().before_fork(); }, [] { Engine::get().after_fork_parent(); },
                 [] { Engine::get().after_fork_child(); });
}

// ---- devices

int Engine::add_device(std::unique_ptr<Device> device) {
  std::lock_guard lock(devices_mutex_);
  device->id = static_cast<int>(devices_.size());
  device->allocator.set_limit(memory_limit_);
  Scheduler::get().register_device(device.get());
  devices_.push_back(std::move(device));
  return devices_.back()->id;
}

void Engine::add_link(std::unique_ptr<Device> device) {
  std::lock_guard lock(devices_mutex_);
  Scheduler::get().register_device(device.get());
  link_ = std::move(device);
}

void Engine::set_memory_limit(std::size_t bytes) {
  {
    std::lock_guard lock(devices_mutex_);
    memory_limit_ = bytes;
    for (auto& d : devices_) d->allocator.set_limit(bytes);
  }
  release_held(nullptr);  // under a limit each task counts for itself
}

void Engine::set_memory_limit(std::size_t bytes, Device& device) {
  device.allocator.set_limit(bytes);
  release_held(nullptr);
}

Device& Engine::device(int id) {
  std::lock_guard lock(devices_mutex_);
  if (id < 0 || static_cast<std::size_t>(id) >= devices_.size())
    throw DeviceError("no device " + std::to_string(id) + ": this process has devices 0 to " +
                      std::to_string(devices_.size() - 1) + " (create one with create_cpu_device or create_gpu_device)");
  return *devices_[static_cast<std::size_t>(id)];
}

Device& Engine::current_device() {
  if (!device_of_thread) {
    stop_at_exit.arm();
    device_of_thread = &device(0);
  }
  return *device_of_thread;
}

std::vector<Device*> Engine::all_devices() {
  std::lock_guard lock(devices_mutex_);
  std::vector<Device*> all;
  for (auto& d : devices_) all.push_back(d.get());
  return all;
}

Ref<Node> Engine::peer_copy_of(Node* node, Device* device, Ref<Node> (*make)(Node*, Device*)) {
  std::vector<Ref<Node>> dropped;  // released after the lock
  {
    std::lock_guard lock(peers_mutex_);
    const auto known = std::ranges::find(node->peer_copies, device, &Node::PeerCopy::device);
    if (known != node->peer_copies.end()) {
      if (!has_failed(*known->node) || has_failed(*node)) {
        known->used = ++peer_uses_;
        return known->node;
      }
      device->copied_bytes -= bytes_of(*known->node);
      dropped.push_back(std::move(known->node));
      node->peer_copies.erase(known);
    }
  }
  auto copy = make(node, device);
  std::lock_guard lock(peers_mutex_);
  const auto other = std::ranges::find(node->peer_copies, device, &Node::PeerCopy::device);
  if (other != node->peer_copies.end()) return other->node;  // another thread was quicker
  node->peer_copies.push_back({device, copy, ++peer_uses_});
  copied_nodes_.insert(node);
  node->has_been_copied = true;
  device->copied_bytes += bytes_of(*copy);
  // What runs soon may read any of them and so keep it: most of the room is left for other work.
  const auto most = device->allocator.limit() / 4;
  if (most > 0 && device->copied_bytes > most) drop_peer_copies_locked(*device, device->copied_bytes - most, dropped);
  return copy;
}

void Engine::forget_peer_copies(Node& node) {
  std::lock_guard lock(peers_mutex_);
  for (const auto& copy : node.peer_copies) copy.device->copied_bytes -= bytes_of(*copy.node);
  copied_nodes_.erase(&node);
}

bool Engine::drop_peer_copies(Device& device, std::size_t bytes) {
  std::vector<Ref<Node>> dropped;  // released after the lock
  std::lock_guard lock(peers_mutex_);
  drop_peer_copies_locked(device, bytes, dropped);
  return !dropped.empty();
}

void Engine::drop_peer_copies_locked(Device& device, std::size_t bytes, std::vector<Ref<Node>>& dropped) {
  struct Candidate {
    std::uint64_t used;
    Node* original;
  };
  const auto on_device = [&](Node* original) {
    return std::ranges::find(original->peer_copies, &device, &Node::PeerCopy::device);
  };
  std::vector<Candidate> candidates;
  for (Node* original : copied_nodes_) {
    const auto copy = on_device(original);
    if (copy == original->peer_copies.end() || copy->node->refs() > 1) continue;
    const Storage* storage = copy->node->storage();
    if (storage && storage->refs() == 1) candidates.push_back({copy->used, original});
  }
  std::ranges::sort(candidates, {}, &Candidate::used);
  std::size_t freed = 0;
  for (const auto& [used, original] : candidates) {
    if (freed >= bytes) break;
    const auto copy = on_device(original);
    freed += copy->node->storage()->bytes;
    device.copied_bytes -= bytes_of(*copy->node);
    dropped.push_back(std::move(copy->node));
    original->peer_copies.erase(copy);
    if (original->peer_copies.empty()) copied_nodes_.erase(original);
  }
}

// ---- recording

void Engine::append(Node* node, EffectLink* link) {
  bool full = false, large = false;
  {
    std::lock_guard lock(window_mutex_);
    node->sequence = recorded_.fetch_add(1, std::memory_order_relaxed) + 1;
    assert(window_.empty() || window_.back()->sequence < node->sequence);
    if (link) link->join(*node);
    window_.push_back(node);
    window_bytes_ += bytes_of(*node);
    window_count_.store(window_.size(), std::memory_order_seq_cst);
    full = window_.size() >= 2 * window_limit();
    large = window_bytes_ > kWindowBytes && window_limit() < kHeldWindow && window_.size() > 2 * kKeptWhenLarge;
  }
  count(counters.recorded);
  auto& scheduler = Scheduler::get();
  if (is_eager()) {
    wait(node, {});
    return;
  }
  if (scheduler.unwatched.load(std::memory_order_seq_cst)) scheduler.wake_watcher(*node->device);
  if (full || large) {
    flush(large ? kKeptWhenLarge : window_limit(), true);
    scheduler.wait_for_task_slots();
  }
}

void Engine::set_window(std::size_t count, std::int64_t idle_us) {
  window_limit_ = std::max<std::size_t>(1, count);
  idle_us_ = idle_us;
  Scheduler::get().settings_changed();
}

// ---- planning

// Window mutex held. Latest first, so that whole dead chains go at once.
void Engine::drop_dead_locked() {
  std::int64_t dropped = 0;
  for (std::size_t i = window_.size(); i-- > 0;) {
    Node* node = window_[i];
    if (!is_dead(*node)) continue;
    node->clear_inputs();
    assert(window_bytes_ >= bytes_of(*node));
    window_bytes_ -= bytes_of(*node);
    node->release();
    window_[i] = nullptr;
    ++dropped;
  }
  if (dropped) std::erase(window_, nullptr);
  count(counters.dropped, dropped);
}

std::size_t Engine::prune() {
  Storage::DeferForeign deferred;
  std::lock_guard lock(window_mutex_);
  drop_dead_locked();
  window_count_.store(window_.size(), std::memory_order_seq_cst);
  return window_.size();
}

void Engine::with_window(const std::function<void(const std::vector<Node*>&)>& f) {
  Storage::DeferForeign deferred;  // released after the locks
  std::lock_guard planning(plan_mutex_);
  std::lock_guard lock(window_mutex_);
  drop_dead_locked();
  window_count_.store(window_.size(), std::memory_order_seq_cst);
  f(window_);
}

// OWL_DUMP: the batch's graph and the plan made of it, numbered.
void Engine::dump(std::span<Node* const> batch) {
  char number[16];
  std::snprintf(number, sizeof number, "%06d", ++dumps_);
  const auto stem = std::filesystem::path(settings().dump) / number;
  std::filesystem::create_directories(settings().dump);
  const std::vector<Node*> nodes(batch.begin(), batch.end());
  write_text(stem.string() + "-graph.dot", draw_window(nodes, nodes));
  write_text(stem.string() + "-plan.txt", explain_window(nodes, nullptr).str());
}

// All but the newest `keep` operations leave the window. Plan mutex held.
RecycledVector<Node*> Engine::take_batch(std::size_t keep) {
  RecycledVector<Node*> batch;
  std::lock_guard lock(window_mutex_);
  drop_dead_locked();
  if (window_.size() > keep) {
    const auto end = window_.begin() + static_cast<std::ptrdiff_t>(cut(window_, window_.size() - keep));
    batch.assign(window_.begin(), end);
    window_.erase(window_.begin(), end);
    for (Node* node : batch) window_bytes_ -= bytes_of(*node);
    assert(!window_.empty() || window_bytes_ == 0);
  }
  window_count_.store(window_.size(), std::memory_order_seq_cst);
  return batch;
}

// The tasks that may run now. Plan mutex held. Nothing is joined while user code runs: where that waits for a value, it
// must not wait for others that read the result of its own task.
Tasks Engine::plan_batch(std::span<Node* const> batch, bool hold) {
  try {
    if (!settings().dump.empty() && !batch.empty()) dump(batch);
  } catch (const std::exception& e) {  // the batch must still run
    log_line(std::string("OWL_DUMP: ") + e.what());
  }
  const auto calls_user_code = [](const Node* node) { return node->op->runs_user_code; };
  const bool may_join = hold || !alike_.empty() || batch.size() >= planner::AlikeTasks::kFewest;
  const bool user_code = Scheduler::get().calls_user_code() || std::ranges::any_of(batch, calls_user_code);
  const bool join = may_join && !user_code && planner::batch_alike.load(std::memory_order_relaxed);
  Tasks tasks;
  if (!join) alike_.release_all(tasks);
  plan(batch, known_plans_, join ? &alike_ : nullptr, user_code, tasks);
  if (!hold) alike_.release_all(tasks);
  return tasks;
}

bool Engine::release_held(Device* returns_to) {
  TaskList inline_tasks;
  {
    Storage::DeferForeign deferred;
    std::lock_guard planning(plan_mutex_);
    Tasks tasks;
    alike_.release_all(tasks);
    Scheduler::get().submit(std::move(tasks), &inline_tasks, returns_to);
    holds_back_.store(false, std::memory_order_seq_cst);
  }
  return Scheduler::get().run_inline(inline_tasks, returns_to);
}

void Engine::flush(std::size_t keep, bool inline_ok) { flush(keep, inline_ok, nullptr); }

bool Engine::flush(std::size_t keep, bool inline_ok, Device* returns_to) {
  TaskList inline_tasks;
  {
    Storage::DeferForeign deferred;  // released after the locks
    std::lock_guard planning(plan_mutex_);
    // Before the window counts as empty, and before a thread learns that a value is planned.
    holds_back_.store(true, std::memory_order_seq_cst);
    const auto batch = take_batch(keep);
    if (!batch.empty() || (keep == 0 && !alike_.empty())) {
      profile::Span span("plan");
      Scheduler::get().submit(plan_batch(batch, keep > 0), inline_ok ? &inline_tasks : nullptr, returns_to);
    }
    holds_back_.store(!alike_.empty(), std::memory_order_seq_cst);
  }
  return Scheduler::get().run_inline(inline_tasks, returns_to);
}

void Engine::allocate_for_data(Storage& storage) {
  const bool injected = Faults::due(faults().alloc);
  auto& allocator = storage.device->allocator;
  if (!injected && ((allocator.limit() == 0 && allocator.allocate(storage, true)) ||
                    Scheduler::get().wait_for_data_memory(storage) || Scheduler::get().take_for_result(storage, true)))
    return;
  refuse_memory(storage, injected);
}

void Engine::copy_memory(Device& device, void* to, const void* from, std::size_t bytes) {
  const auto piece = [=](std::int64_t i) {
    const auto at = static_cast<std::size_t>(i) * kCopyPiece;
    std::memcpy(static_cast<char*>(to) + at, static_cast<const char*>(from) + at, std::min(kCopyPiece, bytes - at));
  };
  if (bytes == 0) return;  // of an empty array, which may have no memory
  if (bytes <= kCopyPiece) return piece(0);
  const auto pieces = static_cast<std::int64_t>((bytes + kCopyPiece - 1) / kCopyPiece);
  Scheduler::get().share_out(device, "copy of memory", cpu::cost::kCopyNs * static_cast<double>(bytes), pieces, piece);
}

void Engine::give_up(Ref<Storage> value) { Scheduler::get().give_up(std::move(value)); }

// ---- waiting

// Of a planned value what is held back may run now, and what is still in the window stays there.
void Engine::start(Node* node) { start(node, nullptr); }

bool Engine::start(Node* node, Device* returns_to) {
  const Node* owner = node->base ? node->base : node;
  if (!owner->planned()) return flush(0, true, returns_to);
  const bool pending = node->storage()->state.load(std::memory_order_acquire) == Storage::State::kPending;
  return pending && holds_back_.load(std::memory_order_seq_cst) && release_held(returns_to);
}

bool Engine::wait(Node* node, std::optional<double> timeout_s) {
  // A task may take longer than the timeout.
  Device* const returns_to = timeout_s ? nullptr : Scheduler::waiter_device(*node->device);
  const bool left = start(node, returns_to);
  Scheduler::Deadline deadline;
  if (timeout_s)
    deadline = std::chrono::steady_clock::now() +
               std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                   std::chrono::duration<double>(std::clamp(*timeout_s, 0.0, 1e9)));
  Storage* storage = node->storage();
  if (!storage->ready() || storage->device->backend->is_async()) storage->device->require_own_process();
  if (!Scheduler::get().wait_value(*storage, deadline, returns_to, left)) return false;
  if (!storage->ready()) raise_failure(storage->failure);
  Backend& backend = *storage->device->backend;
  if (!backend.is_complete(*storage) && !Scheduler::get().wait_complete(backend, storage, deadline)) return false;
  if (auto failure = backend.failure(storage)) raise_failure(std::move(failure));
  return true;
}

void Engine::order(Node* node) {
  start(node);
  Storage* storage = node->storage();
  storage->device->require_own_process();
  Scheduler::get().wait_value(*storage, {});
  if (!storage->ready()) raise_failure(storage->failure);
}

void Engine::wait_for_all() {
  Device* const returns_to = Scheduler::waiter_device(current_device());
  flush(0, true, returns_to);
  Scheduler::get().wait_idle(returns_to);
  std::shared_ptr<const Failure> first;  // reported by a device
  for (Device* device : all_devices()) {
    Backend& backend = *device->backend;
    if (!backend.is_async() || device->lost_in_fork) continue;
    Scheduler::get().wait_complete(backend, nullptr, {});
    if (device->allocator.stats().allocated == 0) continue;
    auto failure = backend.failure(nullptr);
    if (failure && !failure->reported && (!first || failure->sequence < first->sequence)) first = std::move(failure);
  }
  first = report_earliest_failure(std::move(first));
  if (first) raise_failure(first);
}

// ---- fork

namespace {
RankedMutex<LockRank::kHeldWindows> hold_mutex;
int holds = 0;  // HoldWindows that live; the first notes what the last restores
thread_local int own_holds = 0;  // of them, made by this thread
std::size_t held_count;
std::int64_t held_idle_us;
}  // namespace

// The locks are taken in the order in which the engine nests them.
void Engine::before_fork() {
  hold_mutex.lock();
  plan_mutex_.lock();
  window_mutex_.lock();
  devices_mutex_.lock();
  Scheduler::get().before_fork();
  peers_mutex_.lock();  // after the running tasks have ended: one that lacks memory takes it
  for (auto& d : devices_) d->allocator.lock_for_fork();
  if (link_) link_->allocator.lock_for_fork();
  profile::lock_for_fork();
  ForkMutex::lock_all();
}

void Engine::unlock_after_fork(bool child) {
  ForkMutex::unlock_all();
  profile::unlock_after_fork(child);
  for (auto& d : devices_) d->allocator.unlock_after_fork();
  if (link_) link_->allocator.unlock_after_fork();
  peers_mutex_.unlock();
  devices_mutex_.unlock();
  window_mutex_.unlock();
  plan_mutex_.unlock();
  hold_mutex.unlock();
}

void Engine::after_fork_parent() {
  Scheduler::get().after_fork_parent();
  unlock_after_fork(false);
}

void Engine::after_fork_child() {
  Scheduler::get().after_fork_child();
  if (std::exchange(holds, own_holds) > 0 && holds == 0) {  // those of other threads went with them
    window_limit_ = held_count;
    idle_us_ = held_idle_us;
  }
  unlock_after_fork(true);
}

// ---- held windows

HoldWindow::HoldWindow() {
  std::lock_guard lock(hold_mutex);
  ++own_holds;
  if (holds++ > 0) return;
  held_count = Engine::get().window_limit();
  held_idle_us = Engine::get().idle_us();
  set_window(kHeldWindow, -1);
}

void HoldWindow::release() {
  if (!std::exchange(held_, false)) return;
  std::lock_guard lock(hold_mutex);
  --own_holds;
  if (--holds == 0) set_window(held_count, held_idle_us);
}

// ---- the public functions of device.h

int create_cpu_device() { return Engine::get().add_device(cpu::make_device()); }

int create_gpu_device(int index) {
  const auto simulated = settings().simulated_gpus;
  if (index >= 0 && index < simulated) return Engine::get().add_device(cpu::make_simulated_gpu(index));
  if (simulated > 0)
    throw DeviceError("no GPU " + std::to_string(index) + ": OWL_SIMULATED_GPUS=" + std::to_string(simulated) +
                      " gives GPUs 0 to " + std::to_string(simulated - 1));
  try {
    return Engine::get().add_device(gpu::make_device(index));
  } catch (const DeviceError& e) {
    throw DeviceError("no GPU " + std::to_string(index) + ": " + e.what() +
                      ". Without a GPU use create_cpu_device(), or set OWL_SIMULATED_GPUS=" +
                      std::to_string(std::max(1, index + 1)) + " to run multi-GPU scripts on the CPU");
  }
}

int create_null_device() { return Engine::get().add_device(cpu::make_null_device()); }

int get_gpu_device_count() {
  return settings().simulated_gpus > 0 ? static_cast<int>(settings().simulated_gpus) : gpu::count();
}

bool has_cuda() { return gpu::count() > 0; }

void set_device(int id) {
  stop_at_exit.arm();
  device_of_thread = &Engine::get().device(id);
}

int current_device() { return Engine::get().current_device().id; }

std::vector<DeviceInfo> devices() {
  constexpr const char* kinds[] = {"cpu", "gpu", "null"};
  std::vector<DeviceInfo> all;
  for (Device* d : Engine::get().all_devices())
    all.push_back({d->id, kinds[static_cast<int>(d->kind)], d->name, d->threads, d->simulated});
  return all;
}

void wait_for_all() { Engine::get().wait_for_all(); }

void set_memory_limit(std::size_t bytes, std::optional<int> device) {
  auto& engine = Engine::get();
  if (device) return engine.set_memory_limit(bytes, engine.device(*device));
  engine.set_memory_limit(bytes);
}

MemoryStats memory_stats(std::optional<int> device) {
  auto& engine = Engine::get();
  if (device) return engine.device(*device).allocator.stats();
  MemoryStats sum;
  for (Device* d : engine.all_devices()) {
    const auto s = d->allocator.stats();
    sum.allocated += s.allocated;
    sum.cached += s.cached;
    sum.peak += s.peak;
    sum.limit += s.limit;
  }
  return sum;
}

void empty_cache() {
  for (Device* d : Engine::get().all_devices()) d->allocator.empty_cache();
}

}  // namespace owl
