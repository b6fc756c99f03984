#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "graph/node.h"
#include "plan/task.h"

namespace owl {

// What plan() would do with the batch now. The nodes stay as they are, and the tasks are to be looked at, not run.
struct DryPlan {
  std::vector<std::unique_ptr<Task>> tasks;
  std::unordered_map<const Node*, Ref<Storage>> storages;    // of the nodes whose value would reach memory
  std::unordered_map<const Node*, std::size_t> task_of;      // which task would compute the node
};

}  // namespace owl
