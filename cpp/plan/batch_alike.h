// The pass behind emission: tasks that run equal programs over small arrays of their own become one task, a segment
// each.
//
// An update of a hundred parameters is a hundred small programs that differ in their arrays alone. As one task they
// cost one entry in the queues, one launch and a few chunks. The window cuts such an update apart, so that tasks may
// stay here until a later plan brings more that are alike: as long as no other task reads what they make, no caller
// waits for anything, there is not work enough to give every worker a few chunks, and what they keep in memory is
// little.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/module_api.h"
#include "plan/task.h"

namespace owl::planner {

// Whether the pass is on. For tests that compare plans and results with and without it.
OWL_MODULE_API extern std::atomic<bool> batch_alike;

// Called by one thread at a time.
class AlikeTasks {
 public:
  static constexpr std::size_t kFewest = 4;  // that become one task: fewer run as well side by side

  // Takes the tasks of a plan, of whose results no thread knows yet. Appends to `ready` what is not held back, in an
  // order in which inputs precede.
  void add(Tasks planned, Tasks& ready);
  void release_all(Tasks& ready);
  bool empty() const { return buckets_.empty(); }
  std::vector<Task*> tasks() const;  // that are held back

 private:
  struct Bucket {
    std::uint64_t key;  // alike_key of its program
    std::unique_ptr<Task> task;
    std::size_t operations, bytes;
  };
  using Keys = std::vector<std::uint64_t>;

  void release(const Task* held, Tasks& ready);
  std::unique_ptr<Task> hold(std::unique_ptr<Task> task, std::uint64_t key, Tasks& ready);
  bool is_common(std::uint64_t key) const;

  std::vector<Bucket> buckets_;  // in the order in which their first tasks were recorded
  std::size_t bytes_ = 0;        // of what their tasks keep, or will make
  Keys keys_, last_keys_;        // of this plan's tasks (0: not a small program), and of the last plan's small programs
};

// Not 0; equal for programs that are alike.
std::uint64_t alike_key(const Device& device, const Program& program);
// Appends a task's program and operands to those of `to`, which is alike.
void append_alike(Task& to, Task& from);

}  // namespace owl::planner
