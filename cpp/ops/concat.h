// Parameters of concat.
#pragma once

#include "graph/op.h"

namespace owl {

struct ConcatParams : Params {
  explicit ConcatParams(int axis) : axis(axis) {}
  int axis;
};

}  // namespace owl
