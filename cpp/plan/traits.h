// The capabilities of a backend's kernel for an operation, by which the planner decides how operations run.
#pragma once

#include <span>

#include "device/launch.h"
#include "owl/shape.h"

namespace owl {

struct Params;

// How a kernel over images, the last axis, computes them strip by strip (plan/strips.h), with the bits that it has whole.
struct StripTraits {
  std::int64_t unit = 0;    // a strip's images are a multiple of this power of two; 0: the kernel does not
  unsigned cut = 0;         // the arrays that have images: bit 0 the result, bit i + 1 operand i. Others are read whole;
                            // a result that is whole is a sum over the images
  std::int64_t partials = 0;  // of such a sum: bytes of its partial sums
};

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
  // Null: never in strips.
  StripTraits (*strips)(std::span<const ArrayRef> in, const ArrayRef& out, const Params* params) = nullptr;
};

}  // namespace owl
