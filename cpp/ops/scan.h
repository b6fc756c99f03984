// Parameters of scans.
#pragma once

#include "graph/op.h"

namespace owl {

struct ScanParams : Params {
  ScanParams(int axis, bool backwards) : axis(axis), backwards(backwards) {}
  int axis;
  bool backwards;  // from the end of the axis to its start

  void visit(const ParamVisitor& field) const override {
    field("axis", axis);
    field("backwards", backwards);
  }
};

}  // namespace owl
