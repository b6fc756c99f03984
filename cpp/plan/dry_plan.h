#pragma once

#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "graph/node.h"
#include "plan/task.h"

namespace owl {

// The plan that plan() would make of the batch now. Leaves the nodes as they are; the tasks must not be run.
struct DryPlan {
  Tasks tasks;
  // Storages of the values that would reach memory, by planned node and index of its result.
  using Value = std::pair<const Node*, int>;
  static Value value_of(const Node& node) { return {node.base ? node.base : &node, node.result}; }
  std::map<Value, Ref<Storage>> storages;
  std::unordered_map<const Node*, std::size_t> task_of;      // the task that would compute the node
};

}  // namespace owl
