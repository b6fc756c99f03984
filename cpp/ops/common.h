// Parameters shared by several operation families.
#pragma once

#include "graph/op.h"

namespace owl {

// For operations without operands (full, randn ...): what they make.
struct ResultParams : Params {
  ResultParams(const Shape& shape, DType dtype) : shape(shape), dtype(dtype) {}
  Shape shape;
  DType dtype;
};

}  // namespace owl
