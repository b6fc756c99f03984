// How the type of an elementwise operation's result follows from its operands'.
#pragma once

#include <cstdint>

namespace owl {

// types_of in graph/record.cpp applies it.
enum class TypeRule : std::uint8_t {
  kArithmetic,  // the promoted type; computed and returned in it
  kNoBool,      // as kArithmetic, but bool is refused (NumPy's rule for minus)
  kIntFromBool, // as kArithmetic, but bool becomes int32 (pow, abs, sign, square ...)
  kFloat,       // the promoted type, integers become float32
  kCompare,     // computed in the promoted type, returns bool
  kPredicate,   // computed in the operand's own type, returns bool (isnan)
  kSelect,      // where(c, x, y): c is bool, the promoted type of x and y
  kCast,        // the target type is the recorder's choice
};

}  // namespace owl
