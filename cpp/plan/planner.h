// The planner: a batch of recorded operations in, tasks out.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "graph/node.h"
#include "runtime/task.h"

namespace owl {

// Takes over the batch's references. The nodes, in the order of recording, get their storages; the tasks come in an
// order in which inputs precede. Called by one thread at a time.
std::vector<std::unique_ptr<Task>> plan(const std::vector<Node*>& batch);

// What plan() would do with the batch now. The nodes stay as they are, and the tasks are to be looked at, not run.
struct DryPlan {
  std::vector<std::unique_ptr<Task>> tasks;
  std::unordered_map<const Node*, Ref<Storage>> storages;    // of the nodes whose value would reach memory
  std::unordered_map<const Node*, std::size_t> task_of;      // which task would compute the node
};
DryPlan plan_dry(const std::vector<Node*>& batch);

// What OWL_DUMP writes of a batch (plan/explain.cpp).
std::string dump_text(const std::vector<Node*>& batch);
std::string dump_dot(const std::vector<Node*>& batch);

}  // namespace owl
