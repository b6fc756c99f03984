// Reductions over any set of axes.
#pragma once

#include "device/launch.h"

namespace owl::cpu {

// Whether a reduction reads its operand in pieces large enough to be computed separately (KernelTraits::reads_ranges).
bool reduces_ranges(const Shape& shape, const Params* params);
bool arg_reduces_ranges(const Shape& shape, const Params* params);

void sum(const KernelArgs& args, Launch& launch);
void moments(const KernelArgs& args, Launch& launch);
void prod(const KernelArgs& args, Launch& launch);
void mean(const KernelArgs& args, Launch& launch);
void max(const KernelArgs& args, Launch& launch);
void min(const KernelArgs& args, Launch& launch);
void count_zero(const KernelArgs& args, Launch& launch);
void argmax(const KernelArgs& args, Launch& launch);
void argmin(const KernelArgs& args, Launch& launch);
void cumsum(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
