// The planner: a batch of recorded operations in, tasks out.
#pragma once

#include <span>
#include <vector>

#include "graph/node.h"
#include "plan/batch_alike.h"
#include "plan/dry_plan.h"
#include "plan/known_plans.h"
#include "plan/task.h"

namespace owl {

// Takes over the batch's references. The nodes, in the order of recording, get their storages; appends the tasks, in an
// order in which inputs precede. Those that `alike` (null: the pass is left out) holds back come later, out of it. With
// `user_code` in the batch or running, which may wait for a value, kernels do not wait for one another's operands.
// Called by one thread at a time.
void plan(std::span<Node* const> batch, planner::KnownPlans& known, planner::AlikeTasks* alike, bool user_code,
          Tasks& tasks);

// `join_alike`: as `plan` would at once, with nothing held back. Otherwise DryPlan::task_of tells the nodes' tasks.
DryPlan plan_dry(const std::vector<Node*>& batch, bool join_alike);

}  // namespace owl
