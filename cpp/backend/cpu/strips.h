// Tasks in strips (plan/strips.h) on the CPU.
#pragma once

#include "device/launch.h"
#include "plan/strips.h"

namespace owl::cpu {

void launch_strips(const Strips& strips, Task& task, Launch& launch);

}  // namespace owl::cpu
