#include "backend/cpu/nan_watch.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "backend/cpu/isa/kernels.h"
#include "base/visit_dtype.h"
#include "ops/elementwise.h"
#include "owl/error.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunk = 1 << 16;  // elements

double element(const void* x, DType dtype, std::int64_t i) {
  return visit_any_dtype("trace_nan", dtype, [&]<class T>() {
    return elementwise_ops::convert<T, double>(static_cast<const T*>(x)[i]);
  });
}

bool any_nonfinite(const void* x, DType dtype, std::int64_t begin, std::int64_t n) {
  const auto item = static_cast<std::int64_t>(itemsize(dtype));
  return is_float(dtype) && best_tile_table().any_nonfinite(static_cast<const char*>(x) + begin * item, dtype, n);
}

std::string text(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "infinity" : "-infinity";
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", v);
  return buffer;
}

// "[3, 0]": the indices of the element at this position in memory order.
std::string place_in(const Shape& shape, std::int64_t at) {
  std::string s;
  for (int axis = 0; axis < shape.ndim(); ++axis) {
    s += (s.empty() ? "" : ", ") + std::to_string(at % shape[axis]);
    at /= shape[axis];
  }
  return "[" + s + "]";
}

// The operand as the instruction reads it: of where(c, x, y) the condition is a bool.
DType operand_type(const Program::Instruction& i, int k) {
  return elementwise_ops::All::infos[i.code].rule == TypeRule::kSelect && k == 0 ? DType::kBool : i.dtype;
}

}  // namespace

void NanWatch::look(int step, const void* result, const void* const* operands, std::int64_t begin, std::int64_t n) {
  const auto& instruction = program_.instructions[static_cast<std::size_t>(step)];
  if (!any_nonfinite(result, instruction.result, 0, n)) return;
  for (std::int64_t i = 0; i < n; ++i) {
    Found found{begin + i, element(result, instruction.result, i)};
    if (std::isfinite(found.result)) continue;
    bool finite = true;
    for (int k = 0; k < instruction.arity; ++k) {
      // A number is checked in its own type: 1e300 as an operand of float32 is finite.
      const auto constant = instruction.in[k] - program_.inputs.size();
      found.operands[k] = constant < program_.constants.size() ? program_.constants[constant].value
                                                               : element(operands[k], operand_type(instruction, k), i);
      finite &= std::isfinite(found.operands[k]);
    }
    if (!finite) continue;
    std::lock_guard lock(mutex_);
    auto& first = found_[static_cast<std::size_t>(step)];
    if (first.element < 0 || found.element < first.element) first = found;
    return;
  }
}

// Whether this instruction rounds the result of the one before to a narrow type, as part of the same operation.
bool NanWatch::rounds(std::size_t step) const {
  const auto& instruction = program_.instructions[step];
  return instruction.code == kCastCode && step > 0 && program_.instructions[step - 1].sequence == instruction.sequence &&
         instruction.in[0] == program_.inputs.size() + program_.constants.size() + step - 1;
}

std::shared_ptr<const Failure> NanWatch::failure(std::size_t step) const {
  const auto& instruction = program_.instructions[step];
  const Found& found = found_[step];
  const char* const op = elementwise_ops::All::infos[program_.instructions[rounds(step) ? step - 1 : step].code].name;
  std::string operands;
  for (int k = 0; k < instruction.arity; ++k) operands += (k ? " and " : "") + text(found.operands[k]);
  if (rounds(step)) operands += " rounded to " + std::string(name(instruction.result));
  return make_failure<NaNError>(std::string(op) + " made " + text(found.result) + " of " + operands + ", at " +
                                    place_in(program_.shape, found.element) + " of its result " + program_.shape.str(),
                                op, instruction.source, instruction.sequence);
}

void NanWatch::report(Task& task) const {
  const auto steps = program_.instructions.size();
  const auto first_result = program_.inputs.size() + program_.constants.size();
  // For each result: the earliest recorded faulty instruction that it depends on; `steps` for none.
  std::vector<std::size_t> guilty(steps, steps);
  const auto earlier = [&](std::size_t a, std::size_t b) {
    if (a == steps || b == steps) return std::min(a, b);
    return program_.instructions[a].sequence <= program_.instructions[b].sequence ? a : b;
  };
  for (std::size_t s = 0; s < steps; ++s) {
    if (found_[s].element >= 0) guilty[s] = s;
    const auto& instruction = program_.instructions[s];
    for (int k = 0; k < instruction.arity; ++k)
      if (instruction.in[k] >= first_result) guilty[s] = earlier(guilty[s], guilty[instruction.in[k] - first_result]);
  }
  for (std::size_t o = 0; o < task.outputs.size(); ++o) {
    const auto value = program_.outputs[o].value;
    if (value < first_result || task.outputs[o].failure) continue;
    if (const auto s = guilty[value - first_result]; s < steps) task.outputs[o].failure = failure(s);
  }
}

void watch_kernel(const Task& task, Launch& launch) {
  const auto& out = task.outputs[0].array;
  if (!is_float(out.dtype) || out.shape.size() == 0 || !is_finite(task.params.get())) return;
  const auto suspicious = std::make_shared<std::atomic<bool>>(false);
  const std::int64_t size = out.shape.size();
  launch.stage((size + kChunk - 1) / kChunk, [out, size, suspicious](std::int64_t chunk) {
    const auto begin = chunk * kChunk;
    if (any_nonfinite(out.data, out.dtype, begin, std::min(kChunk, size - begin))) *suspicious = true;
  });
  launch.stage(1, [&task, out, size, suspicious](std::int64_t) {
    if (!*suspicious) return;
    std::string shapes;
    for (const auto& in : task.inputs) {
      shapes += (shapes.empty() ? "" : ", ") + in.array.shape.str();
      // A strided operand is checked as its whole block, including the elements between its own.
      const auto& block = *in.storage;
      const auto items = static_cast<std::int64_t>(block.bytes / itemsize(in.array.dtype));
      if (in.array.dense ? any_nonfinite(in.array.data, in.array.dtype, 0, in.array.shape.size())
                         : any_nonfinite(block.data, in.array.dtype, 0, items))
        return;
    }
    std::int64_t at = 0;
    while (std::isfinite(element(out.data, out.dtype, at))) ++at;
    throw NaNError(std::string(task.name) + " made " + text(element(out.data, out.dtype, at)) +
                   (shapes.empty() ? " of finite numbers" : " of finite operands " + shapes) + ", at " +
                   place_in(out.shape, at) + " of its result " + out.shape.str());
  });
}

}  // namespace owl::cpu
