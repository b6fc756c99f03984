// Builds the program of a part of a group.
#pragma once

#include <optional>
#include <vector>

#include "device/launch.h"
#include "graph/op.h"
#include "plan/batch.h"
#include "plan/task_plan.h"

namespace owl::planner {

// While a program is written, inputs, constants and results have separate numbers, because their counts are not yet
// known; finish() numbers them consecutively.
class ProgramWriter {
 public:
  // With `channels_last` the program iterates over the axes in that order.
  ProgramWriter(const Shape& shape, const Load& load, bool channels_last);

  // The input that reads the node's value, if the program has one.
  std::optional<std::uint16_t> find_input(const Node& node) const;
  // Adds an input; `strides` are those of its memory.
  std::uint16_t input(const Node& node, const Strides& strides);
  bool is_dense(std::uint16_t input) const { return plan_.program.inputs[input].dense; }
  // The kernel's result, a dense value that is not among the task's operands.
  std::uint16_t result_of(const Node& kernel);
  // The reader's operand, a number.
  std::uint16_t constant(DType dtype, const Node& reader, std::size_t operand);
  // The value in another type, converted once for all readers.
  std::uint16_t converted(std::uint16_t value, DType from, DType to, const Node& reader) {
    return from == to ? value : convert(value, from, to, reader);
  }
  std::uint16_t add(const Program::Instruction& instruction, const Node& operation);
  void output(std::uint16_t value, DType dtype) { plan_.program.outputs.push_back({value, dtype}); }

  ProgramPlan finish();

 private:
  static constexpr std::uint16_t kConstant = 0x4000, kResult = 0x8000;

  std::uint16_t convert(std::uint16_t value, DType from, DType to, const Node& reader);
  std::uint16_t final_number(std::uint16_t value) const;

  struct Conversion {
    std::uint16_t value;
    DType to;
    std::uint16_t result;
  };
  const Shape shape_;
  const bool channels_last_;
  ProgramPlan plan_;
  std::vector<const Node*> inputs_;
  std::vector<Scalar> constants_;
  std::vector<Conversion> conversions_;
};

}  // namespace owl::planner
