// Parameters of concat.
#pragma once

#include "graph/op.h"

namespace owl {

struct ConcatParams : Params {
  explicit ConcatParams(int axis) : axis(axis) {}
  int axis;

  void visit(const ParamVisitor& field) const override { field("axis", axis); }
};

}  // namespace owl
