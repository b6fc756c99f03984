// Joining arrays, and copying strided views.
#pragma once

#include "graph/op.h"

namespace owl::cpu {

struct ConcatParams : Params {
  explicit ConcatParams(int axis) : axis(axis) {}
  int axis;
};

void concat(const KernelArgs& args, Launch& launch);
void copy(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
