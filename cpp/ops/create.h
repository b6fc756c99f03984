// Parameters of the operations without operands: what they make.
#pragma once

#include <array>
#include <cstdint>

#include "base/module_api.h"
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
  std::int64_t first = 0;            // the element of the whole random array with which this part of it begins

  void visit(const ParamVisitor& field) const override {
    field("shape", lengths_of(shape));
    field("dtype", dtype);
    show(field, names[0], a);
    if (names[1]) show(field, names[1], b);
    if (!random) return;
    field("seed", static_cast<std::int64_t>(seed));
    field("call", static_cast<std::int64_t>(call));
    field("first", first);
  }

 private:
  static void show(const ParamVisitor& field, const char* name, const Number& number) {
    if (number.kind == 2 && number.fits_int64) field(name, number.integer);
    else field(name, number.value);
  }
};

// As rand, randn and randb, but of a larger random array the elements from `first` on, in the order of memory: a range
// along the last axis has the bits that it has in the whole. ValueError: a negative `first`, or one too large.
OWL_MODULE_API NArray rand_part(std::int64_t first, const Shape& shape, double low, double high, DType dtype);
OWL_MODULE_API NArray randn_part(std::int64_t first, const Shape& shape, double mu, double sigma, DType dtype);
OWL_MODULE_API NArray randb_part(std::int64_t first, const Shape& shape, double prob, DType dtype);

// While set, with a count above 0, every random array that this thread draws and whose last axis has `count` elements is
// the part of one for a larger batch that begins with sample `start`. So the shards of a batch draw what the whole draws.
struct SampleRange {
  std::int64_t start = 0, count = 0;
};
OWL_MODULE_API void set_samples(const SampleRange& range);

}  // namespace owl
