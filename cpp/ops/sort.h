// Parameters of sorting.
#pragma once

#include "graph/op.h"

namespace owl {

struct SortParams : Params {
  SortParams(int axis, std::int64_t count, bool largest_first) : axis(axis), count(count), largest_first(largest_first) {}
  int axis;
  std::int64_t count;  // of the elements in order, the first ones that are kept
  bool largest_first;  // NaN is larger than all numbers

  void visit(const ParamVisitor& field) const override {
    field("axis", std::int64_t{axis});
    field("count", count);
    field("largest_first", largest_first);
  }
};

}  // namespace owl
