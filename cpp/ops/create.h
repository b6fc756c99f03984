// Parameters of the operations without operands: what they make.
#pragma once

#include <cmath>
#include <cstdint>

#include "graph/op.h"

namespace owl {

struct CreateParams : Params {
  CreateParams(const Shape& shape, DType dtype, double a, double b) : shape(shape), dtype(dtype), a(a), b(b) {}
  bool finite() const override { return std::isfinite(a) && std::isfinite(b); }
  Shape shape;
  DType dtype;
  double a, b;  // full: value; arange: start, step; rand: low, high; randn: mu, sigma; randb: probability
  std::uint64_t seed = 0, call = 0;  // of random numbers
};

}  // namespace owl
