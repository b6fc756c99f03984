// The engine: the window of recorded operations, waiting, devices, and what a host language adds to them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/module_api.h"
#include "graph/node.h"
#include "owl/device.h"
#include "owl/error.h"
#include "runtime/device.h"

namespace owl {

// What a host language (Python) adds to waiting.
struct RuntimeHooks {
  void* (*before_block)() = nullptr;      // this thread is about to block: e.g. release the GIL, if it holds it
  void (*after_block)(void*) = nullptr;   // gets what before_block returned
  std::string (*place)(const Source&) = nullptr;  // "file:line"; called on any thread, without the language's lock
  bool (*interrupted)() = nullptr;        // polled about 20 times a second inside a block; true ends the wait
};
OWL_MODULE_API void set_runtime_hooks(const RuntimeHooks& hooks);

// Failures of running tasks are thrown by waits as Async<ShapeError>, Async<OutOfMemoryError> ...: catch the owl error
// and ask `dynamic_cast<const FailureCarrier*>` for the operation and the place that recorded it.
struct FailureCarrier {
  std::shared_ptr<const Failure> failure;
};
template <class E> struct Async : E, FailureCarrier {
  explicit Async(std::shared_ptr<const Failure> f) : E(f->message), FailureCarrier{std::move(f)} {}
};
[[noreturn]] void raise_failure(std::shared_ptr<const Failure> failure);
// What a kernel throws that failed in the host language: becomes Failure::cause.
struct CausedError : Error {
  CausedError(Failure::Kind k, const std::string& message, std::shared_ptr<const void> why)
      : Error(message), kind(k), cause(std::move(why)) {}
  Failure::Kind kind;
  std::shared_ptr<const void> cause;
};

// Stops and joins every worker; waits that need them raise from then on. For the end of the process.
OWL_MODULE_API void shutdown();

// How many operations the window keeps back while the script goes on recording, and after how many microseconds of
// quiet an idle worker takes them all (negative: never). For tests and for OWL_WINDOW.
OWL_MODULE_API void set_window(std::size_t count, std::int64_t idle_us);

class Engine {
 public:
  OWL_MODULE_API static Engine& get();

  // --- recording (graph/record.cpp)
  void append(Node* node);          // takes a reference; may plan older operations, may wait at the bounds
  OWL_MODULE_API Device& device(int id);           // DeviceError for an unknown id
  Device& current();                // of this thread
  int add_device(std::unique_ptr<Device> device);
  std::vector<Device*> all_devices();
  void set_memory_limit(std::size_t bytes);  // of every device, those still to come included
  // The value on another device: copied on first use and kept beside the node. A copy that failed although the value did
  // not is made anew.
  Ref<Node> peer_copy_of(Node* node, Device* device, Ref<Node> (*make)(Node*, Device*));
  void forget_peer_copies(Node& node);  // the node is about to go
  // Drops copies on the device that only their originals keep, the longest unused first, until `bytes` are free again.
  // False where there was none. Not under the scheduler's lock.
  bool drop_peer_copies(Device& device, std::size_t bytes);

  // --- waiting
  void start(Node* node);
  bool wait(Node* node, std::optional<double> timeout_s);  // false: timed out; throws the value's failure
  OWL_MODULE_API void order(Node* node);  // waits until the value is ordered on its device (backend/backend.h); throws its failure
  void wait_for_all();

  // --- planning
  // Plans all but the newest `keep` operations. `inline_ok`: run what is tiny on this thread.
  void flush(std::size_t keep, bool inline_ok);
  bool window_empty() const { return window_count_.load(std::memory_order_seq_cst) == 0; }
  std::uint64_t recorded() const { return recorded_.load(std::memory_order_relaxed); }
  bool is_eager() const { return eager_.load(std::memory_order_relaxed); }
  void set_eager(bool on) { eager_ = on; }
  std::int64_t idle_us() const { return idle_us_.load(std::memory_order_relaxed); }
  // Calls f with the recorded, not yet planned operations while nothing is recorded or planned.
  void with_window(const std::function<void(const std::vector<Node*>&)>& f);
  std::size_t prune();              // drops dead operations from the window; returns how many are left

  void note_failure(Storage& storage);    // wait_for_all looks at it for as long as the storage lives
  void forget_failure(Storage& storage);  // the storage is about to go

  // fork(): no lock may be held by a thread that the child lacks.
  void before_fork();
  void after_fork_parent();
  void after_fork_child();

  std::size_t window_limit() const { return window_limit_.load(std::memory_order_relaxed); }
  void set_window(std::size_t count, std::int64_t idle_us);

 private:
  Engine();
  void drop_dead_locked();
  void drop_peer_copies_locked(Device& device, std::size_t bytes, std::vector<Ref<Node>>& dropped);
  void dump(const std::vector<Node*>& batch);
  void unlock_after_fork(bool child);

  std::mutex window_mutex_;
  std::vector<Node*> window_;  // recorded, not yet planned, in order
  std::size_t window_bytes_ = 0;
  std::atomic<std::size_t> window_count_{0};
  std::atomic<std::uint64_t> recorded_{0};
  std::atomic<std::size_t> window_limit_;
  std::atomic<std::int64_t> idle_us_;
  std::atomic<bool> eager_;
  int dumps_ = 0;              // files written for OWL_DUMP; guarded by plan_mutex_

  std::mutex plan_mutex_;      // one planner at a time, in the order of recording

  std::mutex peers_mutex_;
  std::unordered_set<Node*> copied_nodes_;  // that have peer copies
  std::uint64_t peer_uses_ = 0;
  std::mutex devices_mutex_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::size_t memory_limit_;   // of devices to come

  std::mutex failures_mutex_;
  std::unordered_set<Storage*> failures_;  // values that failed; a storage takes itself out when it goes
};

// Another current device for this thread, for a scope.
class OWL_MODULE_API UseDevice {
 public:
  explicit UseDevice(Device& device);
  ~UseDevice();

 private:
  Device* saved_;
};

}  // namespace owl
