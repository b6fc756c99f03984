// The engine: the window of recorded operations, waiting, devices.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "base/module_api.h"
#include "base/ranked_mutex.h"
#include "base/recycled.h"
#include "device/device.h"
#include "graph/sink.h"
#include "owl/device.h"
#include "plan/batch_alike.h"
#include "plan/known_plans.h"
#include "runtime/window.h"

namespace owl {

// Stops and joins every worker; waits that need them raise from then on. For the end of the process.
OWL_MODULE_API void shutdown();

// How many operations the window keeps back while the script goes on recording, and after how many microseconds of
// quiet an idle worker takes them all (negative: never). For tests and for OWL_WINDOW.
OWL_MODULE_API void set_window(std::size_t count, std::int64_t idle_us);

class Engine final : public Sink, public Window {
 public:
  OWL_MODULE_API static Engine& get();

  // --- recording (graph/record.cpp)
  void append(Node* node, EffectLink* link) override;
  OWL_MODULE_API Device& device(int id) override;
  Device& current_device() override;
  int add_device(std::unique_ptr<Device> device);
  std::vector<Device*> all_devices();
  // The link to the other processes of an MPI job: a device without a number, which scripts do not see. Once only.
  OWL_MODULE_API void add_link(std::unique_ptr<Device> device);
  void set_memory_limit(std::size_t bytes);  // of every device, those still to come included
  void set_memory_limit(std::size_t bytes, Device& device);
  Ref<Node> peer_copy_of(Node* node, Device* device, Ref<Node> (*make)(Node*, Device*)) override;
  void forget_peer_copies(Node& node) override;
  void give_up(Ref<Storage> value) override;
  void allocate_for_data(Storage& storage) override;
  void copy_memory(Device& device, void* to, const void* from, std::size_t bytes) override;
  bool drop_peer_copies(Device& device, std::size_t bytes) override;

  // --- waiting
  void start(Node* node) override;
  bool wait(Node* node, std::optional<double> timeout_s) override;
  // Waits until the value is ordered on its device (device/backend.h); throws its failure.
  OWL_MODULE_API void order(Node* node);
  void wait_for_all();

  // --- planning
  void flush(std::size_t keep, bool inline_ok) override;
  bool window_empty() const override {
    return window_count_.load(std::memory_order_seq_cst) == 0 && !holds_back_.load(std::memory_order_seq_cst);
  }
  std::uint64_t recorded() const override { return recorded_.load(std::memory_order_relaxed); }
  bool is_eager() const { return eager_.load(std::memory_order_relaxed); }
  void set_eager(bool on) { eager_ = on; }
  std::int64_t idle_us() const override { return idle_us_.load(std::memory_order_relaxed); }
  void with_window(const std::function<void(const std::vector<Node*>&)>& f) override;
  std::vector<Task*> held_back() const { return alike_.tasks(); }  // for what with_window calls
  std::size_t prune();              // drops dead operations from the window; returns how many are left

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
  // `returns_to`: see Scheduler::submit. Whether tasks are left that this thread returns to.
  bool flush(std::size_t keep, bool inline_ok, Device* returns_to);
  bool start(Node* node, Device* returns_to);
  bool release_held(Device* returns_to);
  RecycledVector<Node*> take_batch(std::size_t keep);
  Tasks plan_batch(std::span<Node* const> batch, bool hold);
  void dump(std::span<Node* const> batch);
  void unlock_after_fork(bool child);

  RankedMutex<LockRank::kWindow> window_mutex_;
  std::vector<Node*> window_;  // recorded, not yet planned, in order
  std::size_t window_bytes_ = 0;
  std::atomic<std::size_t> window_count_{0};
  std::atomic<std::uint64_t> recorded_{0};
  std::atomic<std::size_t> window_limit_;
  std::atomic<std::int64_t> idle_us_;
  std::atomic<bool> eager_;
  int dumps_ = 0;              // files written for OWL_DUMP; guarded by plan_mutex_

  RankedMutex<LockRank::kPlanner> plan_mutex_;  // one planner at a time, in the order of recording
  planner::AlikeTasks alike_;                   // guarded by it
  planner::KnownPlans known_plans_;             // likewise
  std::atomic<bool> holds_back_{false};         // whether tasks are in there, or a plan is being made that may hold some

  RankedMutex<LockRank::kPeerCopies> peers_mutex_;
  std::unordered_set<Node*> copied_nodes_;  // that have peer copies
  std::uint64_t peer_uses_ = 0;
  RankedMutex<LockRank::kDevices> devices_mutex_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<Device> link_;
  std::size_t memory_limit_;   // of devices to come
};

}  // namespace owl
