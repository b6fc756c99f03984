// Arithmetic of gradients: as recorded operations, or at once where all is numbers. Zeros and factors of 1 record
// nothing.
#pragma once

#include "graph/gradient.h"

namespace owl {

Term add(const Term& a, const Term& b);
Term sub(const Term& a, const Term& b);
Term mul(const Term& a, const Term& b);
Term div(const Term& a, const Term& b);
Term neg(const Term& a);
// a where the condition holds, else b; exactly zero where a zero is chosen. `type` is the type of both.
Term select(const NArray& condition, const Term& a, const Term& b, DType type);
// a where the condition holds, else exactly zero.
Term keep(const NArray& condition, const Term& a, DType type);

// The term as an array of this shape and type.
OWL_MODULE_API NArray to_array(const Term& a, const Shape& shape, DType type);
// Of an array whose axes of length 1, or missing at the end, stretch to `shape`.
OWL_MODULE_API Term broadcast_to(const Term& a, const Shape& shape);
// The opposite, by sums: from `from`, the shape of a, to the shape of an operand that broadcast to it.
OWL_MODULE_API Term sum_to(const Term& a, const Shape& from, const Shape& shape);

}  // namespace owl
