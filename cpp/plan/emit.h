// The planner's last pass: tasks from groups.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "plan/batch.h"
#include "plan/dry_plan.h"

namespace owl::planner {

// Appends a task for each group, and copies that kernels need of views. Values that reach memory get their storages;
// with `dry` these go there, and the nodes stay as they are.
void emit(const Batch& batch, std::span<const GroupId> order, std::vector<std::unique_ptr<Task>>& tasks, DryPlan* dry);

}  // namespace owl::planner
