// The capabilities of a backend's kernel for an operation, by which the planner decides how operations run.
#pragma once

#include <span>

#include "owl/shape.h"

namespace owl {

struct Params;

struct KernelTraits {
  // Whether operand `input` may be a view with these strides; null: every operand must be dense, and the planner adds
  // copies of the others.
  bool (*accepts_strided)(const Shape& shape, const Strides& strides, int input) = nullptr;
  // Whether elementwise operations may compute operand 0 range by range (KernelArgs::read); null: never.
  bool (*reads_ranges)(const Shape& operand, const Params* params) = nullptr;
  // The operand whose memory the result may take over if the operand dies here.
  int in_place = -1;
  // Whether elementwise operations may work on the result range by range (KernelArgs::finished).
  bool finishes_ranges = false;
  // The float32 arrays that may be channels last, independently of each other: bit 0 the result, bit i + 1 operand i;
  // null: none.
  unsigned (*channels_last)(std::span<const Shape> in, const Shape& out, const Params* params) = nullptr;
};

}  // namespace owl
