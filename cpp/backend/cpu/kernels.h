// Which kernel computes which operation on the CPU.
#pragma once

#include "base/module_api.h"
#include "device/launch.h"
#include "graph/op.h"
#include "plan/traits.h"

namespace owl::cpu {

struct Kernel : KernelTraits {
  KernelFn run = nullptr;
};

// The operation is one of class kKernel; Error where the CPU has no kernel of it.
OWL_MODULE_API const Kernel& kernel_of(const OpRecord& op);

}  // namespace owl::cpu
