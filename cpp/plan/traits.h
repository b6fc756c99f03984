// What a backend's kernel of an operation can do: what the planner asks before it decides how operations are run.
#pragma once

#include <span>

#include "owl/shape.h"

namespace owl {

struct Params;

struct KernelTraits {
  // Whether operand `input` may be a view with these strides; null: every operand must be dense, and the planner has the
  // others copied.
  bool (*accepts_strided)(const Shape& shape, const Strides& strides, int input) = nullptr;
  // Whether elementwise operations may compute operand 0 range by range (KernelArgs::read); null: never.
  bool (*reads_ranges)(const Shape& operand, const Params* params) = nullptr;
  // The operand whose memory the result may take, when it dies here.
  int in_place = -1;
  // Whether elementwise operations may work on the result range by range (KernelArgs::finished).
  bool finishes_ranges = false;
  // Which float32 arrays may, each for itself, be channels last: bit 0 the result, bit i + 1 operand i; null: none.
  unsigned (*channels_last)(std::span<const Shape> in, const Shape& out, const Params* params) = nullptr;
};

}  // namespace owl
