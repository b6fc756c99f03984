// What a batch's plan depends on, as numbers: batches with equal keys have equal plans (plan/task_plan.h).
#pragma once

#include <cstdint>
#include <vector>

#include "plan/batch.h"

namespace owl::planner {

using PlanKey = std::vector<std::uint64_t>;

// False: the batch has too many different numbers to compare them all, and no key.
bool write_key(const Batch& batch, PlanKey& key);

}  // namespace owl::planner
