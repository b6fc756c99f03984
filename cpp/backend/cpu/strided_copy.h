// Copying a strided window into dense memory: transposes, slices, broadcasts.
#pragma once

#include "base/module_api.h"
#include "device/launch.h"
#include "graph/op.h"

namespace owl::cpu {

// The axes of an iteration space, adjacent ones merged if every operand has one stride for both. Without axes of length
// 1, but with at least one axis.
struct Axes {
  int count = 0;
  std::int64_t lengths[kMaxAxes];
};

// Merges `shape` for `operands` sets of strides, which are rewritten to the merged axes.
OWL_MODULE_API Axes merge_axes(const Shape& shape, Strides* const* strides, int operands);

// Copies elements [begin, begin + n), in dense order, of the window to dst. Works for any strides.
void gather(void* dst, const void* src, const Axes& axes, const Strides& strides, std::size_t itemsize,
            std::int64_t begin, std::int64_t n);

class StridedCopy {
 public:
  StridedCopy(const Shape& shape, const Strides& strides, std::size_t itemsize);

  std::int64_t chunks() const { return chunks_; }
  bool transposes() const { return transpose_axis_ != 0; }
  // `then`, if set, is called for elements that have just been written, until it had all of the chunk.
  void run(std::int64_t chunk, void* dst, const void* src, const FinishRanges& then = nullptr) const;

 private:
  void run_transpose(std::int64_t chunk, void* dst, const void* src, const FinishRanges& then) const;

  Axes axes_;
  Strides strides_{};
  std::size_t itemsize_;
  std::int64_t size_, chunks_;
  int transpose_axis_ = 0;             // the axis that is contiguous in the source; 0: none, or the first axis
  std::int64_t transpose_stride_ = 0;  // of that axis in the destination
  std::int64_t columns_ = 0;           // a chunk's elements along that axis
};

}  // namespace owl::cpu
