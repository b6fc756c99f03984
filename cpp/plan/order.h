// The planner's third pass: in which order the groups run.
#pragma once

#include "plan/batch.h"

namespace owl::planner {

std::vector<GroupId> order(const Batch& batch);

}  // namespace owl::planner
