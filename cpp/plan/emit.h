// The planner's fourth pass: a task for each group, without values yet.
#pragma once

#include <span>

#include "plan/batch.h"
#include "plan/task_plan.h"

namespace owl::planner {

// With copies that kernels need of views.
BatchPlan emit(const Batch& batch, std::span<const GroupId> order);

}  // namespace owl::planner
