// The planner's first pass: which operations run together.
#pragma once

#include "plan/batch.h"

namespace owl::planner {

// Puts every operation of the batch into a group and counts how often each value is read in its group and outside.
void group(Batch& batch);

}  // namespace owl::planner
