// Fused elementwise programs on the CPU: alone, or before and behind a kernel.
#pragma once

#include <vector>

#include "base/module_api.h"
#include "device/launch.h"
#include "plan/program.h"

namespace owl::cpu {

class NanWatch;

// Cuts the program into chunks and adds one stage. `inputs` and `outputs` are data pointers in the program's order;
// an output may be the same memory as a dense input of the same item size.
// `program` must outlive the launch; so must the watch, if there is one.
OWL_MODULE_API void launch_program(const Program& program, std::vector<const void*> inputs, std::vector<void*> outputs,
                    Launch& launch, NanWatch* watch = nullptr);

// A program in front of a kernel (KernelArgs::read): the last of its outputs is what the kernel asks for, the others
// are written to `outputs`. And one behind a kernel (KernelArgs::finished). `program` must outlive the functions.
ReadRanges read_program(const Program& program, std::vector<const void*> inputs, std::vector<void*> outputs);
FinishRanges finish_program(const Program& program, std::vector<const void*> inputs, std::vector<void*> outputs);

// The same in one go on the calling thread: for programs too small to be worth a chunk.
void run_program(const Program& program, const void* const* inputs, void* const* outputs);

// Rough nanoseconds on one thread, for scheduling.
OWL_MODULE_API double program_cost_ns(const Program& program);

}  // namespace owl::cpu
