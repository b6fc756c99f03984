// The CPU's interpreter of fused elementwise programs.
#pragma once

#include "base/module_api.h"
#include "plan/program.h"

namespace owl::cpu {

class NanWatch;

// Runs `n` elements of one scalar expression; operands and result are dense, of the instruction's types.
// `dst` may be the same pointer as an operand.
using TileFn = void (*)(void* dst, const void* a, const void* b, const void* c, std::int64_t n);

// The tile function of an elementwise operation for operands of a type, compiled for the best instruction set of this
// processor; null where the operation does not take that type.
TileFn tile_function(std::uint16_t code, DType dtype);
// The conversion of n elements between two types (float to int truncates toward zero, saturating, NaN gives 0;
// anything to bool is `!= 0`).
TileFn cast_function(DType from, DType to);

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
double program_cost_ns(const Program& program);

}  // namespace owl::cpu
