// The sum of arrays that lie in views of a value.
#pragma once

#include <utility>
#include <vector>

#include "graph/op.h"
#include "owl/narray.h"

namespace owl {

struct ViewPart {
  NArray x;              // of the view's shape
  std::int64_t offset;   // both in elements of the value's memory
  Strides strides;
};

struct AddViewsParams : Params {
  explicit AddViewsParams(const Shape& whole) : whole(whole) {}
  Shape whole;
  bool onto = false;  // operand 0 is an array of this shape, to which the others are added; else zeros are
  std::vector<std::pair<std::int64_t, Strides>> places;  // of the others

  void visit(const ParamVisitor& field) const override {
    field("whole", lengths_of(whole));
    field("onto", onto);
    for (const auto& [offset, strides] : places) {
      field("offset", offset);
      field("strides", std::vector<std::int64_t>(strides.begin(), strides.end()));
    }
  }
};

// `onto`, or zeros where it is empty, with each part added at its view, in this order. No view has an element twice.
// Takes over the memory of `onto`, if nothing else reads that.
NArray add_views(const NArray& onto, std::vector<ViewPart> parts, const Shape& whole);

}  // namespace owl
