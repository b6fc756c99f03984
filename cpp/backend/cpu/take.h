// Choosing elements of an axis by indices, and adding to them.
#pragma once

#include "device/launch.h"

namespace owl::cpu {

void check_indices(const KernelArgs& args, Launch& launch);
void take(const KernelArgs& args, Launch& launch);
void put_add(const KernelArgs& args, Launch& launch);
void sort(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
