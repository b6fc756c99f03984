// Kernels without operands.
#pragma once

#include "device/launch.h"

namespace owl::cpu {

void full(const KernelArgs& args, Launch& launch);
void arange(const KernelArgs& args, Launch& launch);
// Element i of a random array depends on the seed, the call and i alone (Philox 4x32-10, counter i / 4); a part of one
// has its elements from CreateParams::first on.
void rand(const KernelArgs& args, Launch& launch);
void randn(const KernelArgs& args, Launch& launch);
void randb(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
