// A task without values: what the planner makes of a batch, before its operations' numbers and memory are filled in.
// Operations stand in it by their position in the batch, so that a batch of equal structure can use it again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "device/launch.h"
#include "graph/node.h"
#include "plan/program.h"
#include "plan/strips.h"

namespace owl::planner {

using Position = std::uint16_t;  // of an operation in its batch

struct OperandPlan {
  Position reader;
  std::uint16_t operand;            // of the reader
  std::optional<std::size_t> copy{};  // instead of its memory: the result of that task of the plan, a dense copy
  ArrayRef array;
  TaskPart part;
  bool replaceable = false;
  bool operator==(const OperandPlan&) const = default;
};

struct ResultPlan {
  Position maker;
  std::uint16_t result = 0;  // of the maker
  bool value = true;         // false: a copy of a view, which no node stands for
  bool token = false;
  Device* device;
  ArrayRef array;
  TaskPart part;
  bool operator==(const ResultPlan&) const = default;
};

struct ProgramPlan {
  struct Number {
    Position reader;
    std::uint16_t operand;
    bool operator==(const Number&) const = default;
  };

  Program program;                   // its constants are 0, its instructions come from nowhere
  std::vector<Position> operations;  // of each instruction
  std::vector<Number> numbers;       // of each constant: the first operand that is this number
  std::shared_ptr<const Program> filled{};  // with the numbers of the last batch
  bool operator==(const ProgramPlan& other) const {
    return program == other.program && operations == other.operations && numbers == other.numbers;
  }
};

struct StripsPlan;

struct TaskPlan {
  Device* device;
  const char* name;
  Position shown;            // the operation that stands for the task in errors and logs
  bool traced = false;
  double cost_ns = 0;
  std::uint64_t alike_key = 0;  // of a program alone (plan/batch_alike.h)
  std::optional<ProgramPlan> before{}, after{};
  bool has_kernel = false;   // of `shown`
  int kernel_output = -1;
  std::vector<int> kernel_outputs{};
  std::vector<OperandPlan> inputs{};
  std::vector<ResultPlan> outputs{};
  std::size_t fused = 0;     // elementwise operations
  std::vector<StripsPlan> strips{};  // none, or one instead of the parts
  bool operator==(const TaskPlan&) const = default;
};

// Tasks that become one, in strips.
struct StripsPlan {
  struct Member {
    TaskPlan task;
    std::vector<StripPlace> inputs{}, outputs{};  // of the task's
    bool operator==(const Member&) const = default;
  };
  std::int64_t images, strip;
  std::vector<Member> members{};
  std::vector<std::size_t> bytes{};  // as in Strips
  bool operator==(const StripsPlan&) const = default;
};

using BatchPlan = std::vector<TaskPlan>;  // operands precede their readers

}  // namespace owl::planner
