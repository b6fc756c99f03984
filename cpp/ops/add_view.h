// A value with an array added at a view of it.
#pragma once

#include "graph/op.h"
#include "owl/narray.h"

namespace owl {

struct AddViewParams : Params {
  AddViewParams(std::int64_t offset, const Strides& strides) : offset(offset), strides(strides) {}
  std::int64_t offset;  // both in elements of the value's memory
  Strides strides;

  void visit(const ParamVisitor& field) const override {
    field("offset", offset);
    field("strides", std::vector<std::int64_t>(strides.begin(), strides.end()));
  }
};

// `whole`, a dense array, with x added where the view with x's shape, this offset and these strides lies. The view has no
// element twice. It takes over the memory of `whole`, if nothing else reads that: it costs x's elements then.
NArray add_view(NArray whole, const NArray& x, std::int64_t offset, const Strides& strides);

}  // namespace owl
