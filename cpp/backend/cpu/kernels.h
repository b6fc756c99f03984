// The CPU's table from operation to kernel.
#pragma once

#include "backend/cpu/strip_kernel.h"
#include "base/module_api.h"
#include "device/launch.h"
#include "graph/op.h"
#include "plan/traits.h"

namespace owl::cpu {

struct Kernel : KernelTraits {
  KernelFn run = nullptr;
  StripKernelFn in_strips = nullptr;  // where KernelTraits::strips offers it
};

// For an operation of class kKernel. Error: the CPU has no kernel for it.
OWL_MODULE_API const Kernel& kernel_of(const OpRecord& op);

}  // namespace owl::cpu
