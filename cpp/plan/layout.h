// The planner's second pass: chooses the images that stay channels last between kernels.
#pragma once

#include "plan/batch.h"

namespace owl::planner {

// Sets Group::channels_last.
void lay_out(Batch& batch);

// The operands and result that the group's kernel takes channels last on its device: bits as in
// KernelTraits::channels_last.
unsigned known_channels_last(const Group& group);

}  // namespace owl::planner
