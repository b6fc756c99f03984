// The planner's sixth pass: tasks from a batch's plan.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "plan/dry_plan.h"
#include "plan/task_plan.h"

namespace owl::planner {

// Appends the plan's tasks with the operations' numbers, parameters, sources and memory. `nodes`: the batch, or one
// whose plan is the same. Values that reach memory get their storages; with `dry` these go there, and the nodes stay as
// they are.
void fill_in(BatchPlan& plan, std::span<Node* const> nodes, Tasks& tasks,
             DryPlan* dry);

}  // namespace owl::planner
