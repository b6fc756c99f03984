// Reductions over any set of axes.
#pragma once

#include "graph/op.h"

namespace owl::cpu {

struct ReduceParams : Params {
  explicit ReduceParams(unsigned axes, bool all) : axes(axes), all(all) {}
  unsigned axes;  // bit i: axis i goes
  bool all;       // no axis was named: the result's shape is [1]
};

// Whether a reduction reads its operand in pieces that are worth being computed one by one (OpRecord::reads_ranges).
bool reduces_ranges(const Shape& shape, const Params* params);
bool arg_reduces_ranges(const Shape& shape, const Params* params);

void sum(const KernelArgs& args, Launch& launch);
void mean(const KernelArgs& args, Launch& launch);
void max(const KernelArgs& args, Launch& launch);
void min(const KernelArgs& args, Launch& launch);
void count_zero(const KernelArgs& args, Launch& launch);
void argmax(const KernelArgs& args, Launch& launch);
void argmin(const KernelArgs& args, Launch& launch);

}  // namespace owl::cpu
