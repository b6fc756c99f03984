// Parameters of the operations without operands: what they make.
#pragma once

#include <array>
#include <cstdint>

#include "graph/op.h"
#include "owl/narray.h"

namespace owl {

struct CreateParams : Params {
  using Names = std::array<const char*, 2>;
  CreateParams(const Shape& shape, DType dtype, Names names, const Number& a, const Number& b = 0)
      : shape(shape), dtype(dtype), names(names), a(a), b(b) {}
  Shape shape;
  DType dtype;
  Names names;  // of a and b; null: not used
  Number a, b;
  bool random = false;
  std::uint64_t seed = 0, call = 0;  // of random numbers

  void visit(const ParamVisitor& field) const override {
    field("shape", lengths_of(shape));
    field("dtype", dtype);
    show(field, names[0], a);
    if (names[1]) show(field, names[1], b);
    if (!random) return;
    field("seed", static_cast<std::int64_t>(seed));
    field("call", static_cast<std::int64_t>(call));
  }

 private:
  static void show(const ParamVisitor& field, const char* name, const Number& number) {
    if (number.kind == 2 && number.fits_int64) field(name, number.integer);
    else field(name, number.value);
  }
};

}  // namespace owl
