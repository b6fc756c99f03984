#include "plan/program_writer.h"

#include <utility>

namespace owl::planner {

namespace {

Shape in_channels_last_order(const Shape& shape) {
  const auto& order = channels_last_order;
  return {shape[order[0]], shape[order[1]], shape[order[2]], shape[order[3]]};
}

Strides in_channels_last_order(const Strides& strides) {
  Strides ordered = strides;
  for (std::size_t axis = 0; axis < 4; ++axis)
    ordered[axis] = strides[static_cast<std::size_t>(channels_last_order[axis])];
  return ordered;
}

}  // namespace

ProgramWriter::ProgramWriter(const Shape& shape, const Load& load, bool channels_last)
    : shape_(shape), channels_last_(channels_last) {
  plan_.program.shape = channels_last ? in_channels_last_order(shape) : shape;
  plan_.program.instructions.reserve(static_cast<std::size_t>(load.instructions));
  plan_.operations.reserve(static_cast<std::size_t>(load.instructions));
  plan_.program.inputs.reserve(static_cast<std::size_t>(load.inputs) + 1);
  inputs_.reserve(static_cast<std::size_t>(load.inputs) + 1);
}

std::optional<std::uint16_t> ProgramWriter::find_input(const Node& node) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i] == &node) return static_cast<std::uint16_t>(i);
  return {};
}

std::uint16_t ProgramWriter::input(const Node& node, const Strides& strides) {
  Strides over_shape = strides;
  for (int axis = 0; axis < kMaxAxes; ++axis)
    if (axis >= node.shape.ndim() || (node.shape[axis] == 1 && shape_.at_or_one(axis) != 1))
      over_shape[static_cast<std::size_t>(axis)] = 0;
  if (channels_last_) over_shape = in_channels_last_order(over_shape);
  const bool dense = !node.strides && node.shape.size() == shape_.size();
  inputs_.push_back(&node);
  plan_.program.inputs.push_back({node.dtype, over_shape, dense});
  return static_cast<std::uint16_t>(inputs_.size() - 1);
}

std::uint16_t ProgramWriter::result_of(const Node& kernel) {
  inputs_.push_back(&kernel);
  plan_.program.inputs.push_back({kernel.dtype, plan_.program.shape.dense_strides(), true});
  return static_cast<std::uint16_t>(inputs_.size() - 1);
}

std::uint16_t ProgramWriter::constant(DType dtype, const Node& reader, std::size_t operand) {
  auto& all = plan_.program.constants;
  const Scalar& number = reader.scalars[operand];
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].dtype == dtype && is_same_number(constants_[i], number)) return static_cast<std::uint16_t>(kConstant + i);
  all.push_back({dtype, 0});
  constants_.push_back(number);
  plan_.numbers.push_back({position_of(reader), static_cast<std::uint16_t>(operand)});
  return static_cast<std::uint16_t>(kConstant + all.size() - 1);
}

std::uint16_t ProgramWriter::add(const Program::Instruction& instruction, const Node& operation) {
  plan_.program.instructions.push_back(instruction);
  plan_.operations.push_back(position_of(operation));
  return static_cast<std::uint16_t>(kResult + plan_.operations.size() - 1);
}

std::uint16_t ProgramWriter::convert(std::uint16_t value, DType from, DType to, const Node& reader) {
  for (const auto& c : conversions_)
    if (c.value == value && c.to == to) return c.result;
  const auto result = add({kCastCode, from, to, 1, {value, 0, 0}}, reader);
  conversions_.push_back({value, to, result});
  return result;
}

ProgramPlan ProgramWriter::finish() {
  for (auto& instruction : plan_.program.instructions)
    for (auto& value : instruction.in) value = final_number(value);
  for (auto& out : plan_.program.outputs) out.value = final_number(out.value);
  return std::move(plan_);
}

std::uint16_t ProgramWriter::final_number(std::uint16_t value) const {
  const auto inputs = plan_.program.inputs.size();
  if (value < kConstant) return value;
  if (value < kResult) return static_cast<std::uint16_t>(inputs + value - kConstant);
  return static_cast<std::uint16_t>(inputs + plan_.program.constants.size() + value - kResult);
}

}  // namespace owl::planner
