// Parameters of the operations that choose elements by arrays of indices.
#pragma once

#include "base/module_api.h"
#include "base/visit_dtype.h"
#include "graph/op.h"

namespace owl {

// The types of indices in kernels; of uint8 they are converted.
template <class F> decltype(auto) visit_index(const char* what, DType dtype, F&& f) {
  return visit_dtype<DType::kInt32, DType::kInt64>(what, dtype, f);
}
constexpr bool is_index(DType dtype) { return dtype != DType::kBool && !is_float(dtype); }

// Indices on an axis of `length` elements.
struct CheckIndicesParams : Params {
  const char* what = "";    // the function that was called
  std::int64_t length = 0;
  int axis = -1;            // -1: of no array, the indices are classes
  bool from_end = true;     // negative indices count from the end

  OWL_MODULE_API std::string out_of_range(std::int64_t index) const;  // the message
  void visit(const ParamVisitor& field) const override {
    field("what", std::string_view(what));
    field("length", length);
    field("axis", std::int64_t{axis});
    field("from_end", from_end);
  }
};

struct TakeParams : Params {
  explicit TakeParams(int axis) : axis(axis) {}
  int axis;

  void visit(const ParamVisitor& field) const override { field("axis", std::int64_t{axis}); }
};

// An array as [inner, length, outer], around an axis.
struct AroundAxis {
  std::int64_t inner = 1, length, outer = 1;

  AroundAxis(const Shape& shape, int axis) : length(shape[axis]) {
    for (int i = 0; i < shape.ndim(); ++i) (i < axis ? inner : outer) *= i == axis ? 1 : shape[i];
  }
};

}  // namespace owl
