// The planner's pass behind emission: tasks over images that are best run depth first become one task, in strips.
#pragma once

#include "plan/batch.h"
#include "plan/task_plan.h"

namespace owl::planner {

void form_strips(const Batch& batch, BatchPlan& plan);

}  // namespace owl::planner
