// The planner's second pass: which images stay channels last between kernels.
#pragma once

#include "plan/batch.h"

namespace owl::planner {

// Sets Group::channels_last.
void lay_out(Batch& batch);

// Of which of its values the group's kernel knows that layout on its device: bits as in KernelTraits::channels_last.
unsigned known_channels_last(const Group& group);

}  // namespace owl::planner
