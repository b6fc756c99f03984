#include "backend/cpu/strided_copy.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kChunkElements = 1 << 16;
// The chunk of a transpose: few enough rows on either side that their pages fit the TLB.
constexpr std::int64_t kBlockRows = 512, kBlockColumns = 128;
// Of a chunk whose destination is contiguous, which needs no more pages for more columns.
constexpr std::int64_t kBlockElements = 1 << 15;
// Transposed at a time: whole cache lines of the source, and few enough elements for the L1 cache.
constexpr std::int64_t kLineColumns = 16, kPartElements = 1 << 13;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class T>
void gather_typed(T* dst, const T* src, const Axes& axes, const Strides& strides, std::int64_t begin, std::int64_t n) {
  std::int64_t at[kMaxAxes] = {}, offset = 0;
  for (int i = 0; i < axes.count && begin != 0; ++i) {
    at[i] = begin % axes.lengths[i];
    begin /= axes.lengths[i];
    offset += at[i] * strides[i];
  }
  const std::int64_t step = strides[0], length = axes.lengths[0];
  const auto& table = best_tile_table();
  while (n > 0) {
    const std::int64_t run = std::min(n, length - at[0]);
    const T* s = src + offset;
    if (step == 1) std::memcpy(dst, s, static_cast<std::size_t>(run) * sizeof(T));
    else if (step == 0) table.fill(dst, s, sizeof(T), run);
    else table.strided(dst, s, step, sizeof(T), run);
    dst += run;
    n -= run;
    offset -= at[0] * step;
    at[0] = 0;
    for (int i = 1; i < axes.count; ++i) {
      offset += strides[i];
      if (++at[i] < axes.lengths[i]) break;
      offset -= at[i] * strides[i];
      at[i] = 0;
    }
  }
}

template <class T>
void transpose_typed(T* dst, std::int64_t dst_stride, const T* src, std::int64_t src_stride, std::int64_t rows,
                     std::int64_t columns) {
  if constexpr (sizeof(T) == 4) {
    best_tile_table().transpose4(dst, dst_stride, src, src_stride, rows, columns);
  } else {
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t i = 0; i < rows; ++i) dst[i + j * dst_stride] = src[j + i * src_stride];
  }
}

// Calls `f` with a pointer type of the element's size.
template <class F> void with_element(std::size_t itemsize, F f) {
  switch (itemsize) {
    case 1: return f(static_cast<std::uint8_t*>(nullptr));
    case 2: return f(static_cast<std::uint16_t*>(nullptr));
    case 4: return f(static_cast<std::uint32_t*>(nullptr));
    default: return f(static_cast<std::uint64_t*>(nullptr));
  }
}

}  // namespace

Axes merge_axes(const Shape& shape, Strides* const* strides, int operands) {
  Axes axes;
  int last = -1;
  for (int i = 0; i < shape.ndim(); ++i) {
    if (shape[i] == 1) continue;
    bool merge = last >= 0;
    for (int k = 0; k < operands && merge; ++k)
      merge = (*strides[k])[i] == (*strides[k])[last] * axes.lengths[last];
    if (merge) {
      axes.lengths[last] *= shape[i];
    } else {
      ++last;
      axes.lengths[last] = shape[i];
      for (int k = 0; k < operands; ++k) (*strides[k])[last] = (*strides[k])[i];
    }
  }
  if (last < 0) {
    last = 0;
    axes.lengths[0] = 1;
    for (int k = 0; k < operands; ++k) (*strides[k])[0] = 0;
  }
  axes.count = last + 1;
  return axes;
}

void gather(void* dst, const void* src, const Axes& axes, const Strides& strides, std::size_t itemsize,
            std::int64_t begin, std::int64_t n) {
  with_element(itemsize, [&]<class T>(T*) {
    gather_typed(static_cast<T*>(dst), static_cast<const T*>(src), axes, strides, begin, n);
  });
}

StridedCopy::StridedCopy(const Shape& shape, const Strides& strides, std::size_t itemsize)
    : strides_(strides), itemsize_(itemsize), size_(shape.size()) {
  Strides* one[] = {&strides_};
  axes_ = merge_axes(shape, one, 1);
  chunks_ = ceil_div(size_, kChunkElements);
  if (std::abs(strides_[0]) <= 1 || size_ == 0) return;
  std::int64_t stride = axes_.lengths[0];
  for (int i = 1; i < axes_.count; ++i) {
    if (strides_[i] == 1 && axes_.lengths[0] >= 4 && axes_.lengths[i] >= 4) {
      transpose_axis_ = i;
      transpose_stride_ = stride;
      const bool contiguous = i == 1 && axes_.lengths[0] <= kBlockRows;
      columns_ = contiguous ? std::max(kBlockColumns, kBlockElements / axes_.lengths[0] / 16 * 16) : kBlockColumns;
      chunks_ = ceil_div(axes_.lengths[0], kBlockRows) * ceil_div(axes_.lengths[i], columns_) *
                (size_ / axes_.lengths[0] / axes_.lengths[i]);
      return;
    }
    stride *= axes_.lengths[i];
  }
}

void StridedCopy::run(std::int64_t chunk, void* dst, const void* src, const FinishRanges& then) const {
  if (transpose_axis_ != 0) return run_transpose(chunk, dst, src, then);
  const std::int64_t begin = chunk * kChunkElements, n = std::min(kChunkElements, size_ - begin);
  gather(static_cast<char*>(dst) + begin * static_cast<std::int64_t>(itemsize_), src, axes_, strides_, itemsize_, begin,
         n);
  if (then) then({begin, n});
}

void StridedCopy::run_transpose(std::int64_t chunk, void* dst, const void* src, const FinishRanges& then) const {
  const std::int64_t across = ceil_div(axes_.lengths[0], kBlockRows);
  const std::int64_t down = ceil_div(axes_.lengths[transpose_axis_], columns_);
  const std::int64_t row = chunk % across * kBlockRows, column = chunk / across % down * columns_;
  // The other axes give the plane's offset.
  std::int64_t plane = chunk / across / down, stride = axes_.lengths[0];
  std::int64_t from = column + row * strides_[0], to = row + column * transpose_stride_;
  for (int i = 1; i < axes_.count; ++i) {
    if (i != transpose_axis_) {
      const std::int64_t at = plane % axes_.lengths[i];
      plane /= axes_.lengths[i];
      from += at * strides_[i];
      to += at * stride;
    }
    stride *= axes_.lengths[i];
  }
  const std::int64_t rows = std::min(kBlockRows, axes_.lengths[0] - row);
  const std::int64_t columns = std::min(columns_, axes_.lengths[transpose_axis_] - column);
  const std::int64_t part = std::max(kLineColumns, kPartElements / rows / kLineColumns * kLineColumns);
  for (std::int64_t at = 0; at < columns; at += part) {
    const std::int64_t n = std::min(part, columns - at), begin = to + at * transpose_stride_;
    with_element(itemsize_, [&]<class T>(T*) {
      transpose_typed(static_cast<T*>(dst) + begin, transpose_stride_, static_cast<const T*>(src) + from + at,
                      strides_[0], rows, n);
    });
    if (then) then({begin, rows, transpose_stride_, n});
  }
}

}  // namespace owl::cpu
