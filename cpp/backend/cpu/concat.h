// Joining arrays, and copying strided views.
#pragma once

#include "device/launch.h"

namespace owl::cpu {

void concat(const KernelArgs& args, Launch& launch);
void copy(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
