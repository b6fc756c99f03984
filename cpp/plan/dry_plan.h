#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graph/node.h"
#include "plan/task.h"

namespace owl {

// What plan() would do with the batch now. The nodes stay as they are, and the tasks are to be looked at, not run.
struct DryPlan {
  std::vector<std::unique_ptr<Task>> tasks;
  // The memory of values that would reach it: by the node that is planned, and which of its results.
  using Value = std::pair<const Node*, int>;
  static Value value_of(const Node& node) { return {node.base ? node.base : &node, node.result}; }
  std::map<Value, Ref<Storage>> storages;
  std::unordered_map<const Node*, std::size_t> task_of;      // which task would compute the node
};

}  // namespace owl
