// The planner: a batch of recorded operations in, tasks out.
#pragma once

#include <memory>
#include <vector>

#include "graph/node.h"
#include "plan/dry_plan.h"
#include "plan/task.h"

namespace owl {

// Takes over the batch's references. The nodes, in the order of recording, get their storages; the tasks come in an
// order in which inputs precede. Called by one thread at a time.
std::vector<std::unique_ptr<Task>> plan(const std::vector<Node*>& batch);

DryPlan plan_dry(const std::vector<Node*>& batch);

}  // namespace owl
