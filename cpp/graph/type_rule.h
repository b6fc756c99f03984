// Rules for the result type of elementwise operations.
#pragma once

#include <cstdint>

namespace owl {

// types_of in graph/record.cpp applies it.
enum class TypeRule : std::uint8_t {
  kArithmetic,  // computed in the promoted type, returns it
  kNoBool,      // as kArithmetic, but bool is an error (NumPy's rule for minus)
  kIntFromBool, // as kArithmetic, but bool becomes int32 (pow, abs, sign, square ...)
  kInteger,     // as kArithmetic, but floats are an error (& | ^ ~)
  kFloat,       // the promoted type, with float32 for integers
  kCompare,     // computed in the promoted type, returns bool
  kPredicate,   // computed in the operand's own type, returns bool (isnan)
  kSelect,      // where(c, x, y): c is bool, the promoted type of x and y
  kCast,        // the recorder chooses the target type
};

}  // namespace owl
