// A fused chain of elementwise operations: a register program that a device runs over tiles of the iteration shape.
#pragma once

#include <cstdint>
#include <vector>

#include "graph/op.h"

namespace owl {

// Values are numbered: inputs first, then constants, then each instruction's result.
struct Program {
  struct Input {
    DType dtype;
    Strides strides;  // over `shape`, in elements; 0 along a broadcast axis
    bool dense;       // strides are those of a dense array of `shape`
    bool operator==(const Input&) const = default;
  };
  struct Constant {
    DType dtype;
    double value;
    std::int64_t integer = 0;  // the value of an int64, which a double may not hold
    bool operator==(const Constant&) const = default;
  };
  struct Instruction {
    std::uint16_t code;   // tile function (OpRecord::code)
    DType dtype;          // type of the operands (for a cast: the source type)
    DType result;         // type of the result
    std::uint8_t arity;
    std::uint16_t in[3];  // value numbers
    Source source{};      // where the script recorded it
    std::uint64_t sequence = 0;
    bool operator==(const Instruction&) const = default;
  };
  struct Output {
    std::uint16_t value;
    DType dtype;
    bool operator==(const Output&) const = default;
  };

  Shape shape;  // the iteration space; outputs are dense arrays of it
  std::vector<Input> inputs;
  std::vector<Constant> constants;
  std::vector<Instruction> instructions;
  std::vector<Output> outputs;
  bool operator==(const Program&) const = default;
};

}  // namespace owl
