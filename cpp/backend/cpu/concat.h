// Joining arrays, copying strided views, and adding to them.
#pragma once

#include "device/launch.h"

namespace owl::cpu {

void concat(const KernelArgs& args, Launch& launch);
void copy(const KernelArgs& args, Launch& launch);
void add_views(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
