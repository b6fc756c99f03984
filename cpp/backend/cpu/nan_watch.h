// Finds the operation that makes a NaN or an infinity from finite operands (owl::trace_nan).
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/module_api.h"
#include "plan/task.h"

namespace owl::cpu {

// Watches one run of a fused program, each instruction separately: reports an element whose result is not finite
// although the element of every operand is.
class OWL_MODULE_API NanWatch {
 public:
  explicit NanWatch(const Program& program) : program_(program), found_(program.instructions.size()) {}

  // Instruction `step` has computed elements [begin, begin + n).
  void look(int step, const void* result, const void* const* operands, std::int64_t begin, std::int64_t n);
  // Marks every output that depends on such an instruction as failed; the others are not affected.
  void report(Task& task) const;

 private:
  struct Found {
    std::int64_t element = -1;  // the first one, in memory order
    double result = 0;
    double operands[3] = {};
  };
  bool rounds(std::size_t step) const;
  std::shared_ptr<const Failure> failure(std::size_t step) const;

  const Program& program_;
  std::mutex mutex_;
  std::vector<Found> found_;  // by instruction
};

// Adds stages after the kernel's own that check its result. NaNError: the result has a NaN or an infinity, but no
// operand has, nor a parameter of a kernel without operands (full, randn).
OWL_MODULE_API void watch_kernel(const Task& task, Launch& launch);

}  // namespace owl::cpu
