// Parameters of the reductions.
#pragma once

#include "graph/op.h"

namespace owl {

struct ReduceParams : Params {
  ReduceParams(unsigned axes, bool all) : axes(axes), all(all) {}
  unsigned axes;  // bit i: axis i goes
  bool all;       // no axis was named: the result's shape is [1]
};

}  // namespace owl
