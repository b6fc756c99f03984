// Fused elementwise programs on the CPU: alone, or before and after a kernel.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/module_api.h"
#include "device/launch.h"
#include "plan/program.h"

namespace owl::cpu {

class NanWatch;

// Cuts the program into chunks and adds one stage. `inputs` and `outputs` are data pointers in the program's order;
// an output may be the same memory as a dense input of the same item size.
// `program` must outlive the launch; so must the watch, if there is one.
OWL_MODULE_API void launch_program(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs,
                    Launch& launch, NanWatch* watch = nullptr);

// Equal programs, each over arrays of its own: a chunk runs some of them, each whole.
class ProgramList {
 public:
  // The program must outlive the launch. Its data pointers follow, in its order.
  void add(const Program& program) { programs_.push_back({&program, inputs_.size(), outputs_.size()}); }
  void add_input(const void* data) { inputs_.push_back(data); }
  void add_output(void* data) { outputs_.push_back(data); }
  static void launch(std::shared_ptr<const ProgramList> list, Launch& launch);

 private:
  struct Entry {
    const Program* program;
    std::size_t input, output;  // where its first pointers are
  };
  std::vector<Entry> programs_;
  Addresses<const void*> inputs_;
  Addresses<void*> outputs_;
};

// A program before a kernel (KernelArgs::read): its last output is the kernel's operand, the others are written to
// `outputs`; and one after a kernel (KernelArgs::finished). `program` must outlive the functions.
ReadRanges read_program(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs);
FinishRanges finish_program(const Program& program, Addresses<const void*> inputs, Addresses<void*> outputs);

// Runs the whole program on the calling thread: for programs too small for a chunk.
void run_program(const Program& program, const void* const* inputs, void* const* outputs);

// Rough nanoseconds on one thread, for scheduling.
OWL_MODULE_API double program_cost_ns(const Program& program);

}  // namespace owl::cpu
