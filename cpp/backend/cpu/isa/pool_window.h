// What the pooling kernels of both layouts share. Compiled once per instruction set, as they are.
#pragma once

#include <cstdint>

#include "ops/nn.h"

namespace owl::cpu::OWL_ISA {
namespace {

struct Span {
  std::int64_t begin, end;
  std::int64_t padded;  // its length inside the padded image
};

// The part of window `o` along one axis that lies inside the image.
inline Span window(std::int64_t o, std::int64_t stride, std::int64_t pad, std::int64_t size, std::int64_t length) {
  const std::int64_t begin = o * stride - pad;
  const std::int64_t padded_end = begin + size < length + pad ? begin + size : length + pad;
  return {begin < 0 ? 0 : begin, padded_end < length ? padded_end : length, padded_end - begin};
}

// Whether b replaces the maximum a: larger, or the first NaN (a NaN is never replaced, nothing being larger).
template <class T> inline bool replaces(T b, T a) { return (b > a) | ((b != b) & (a == a)); }
template <class T> inline T larger(T a, T b) {
  a = b > a ? b : a;
  return b != b ? b : a;
}

struct Max {
  template <class T> static T join(T a, T b) { return larger(a, b); }
  template <class T> static T finish(T x, std::int64_t) { return x; }
};
struct Average {
  template <class T> static T join(T a, T b) { return a + b; }
  template <class T> static T finish(T x, std::int64_t n) { return x / static_cast<T>(n); }
};

// How many windows of an unpadded axis, from the first, lie wholly inside.
inline std::int64_t whole_windows(std::int64_t out, std::int64_t stride, std::int64_t size, std::int64_t length) {
  const std::int64_t n = length < size ? 0 : (length - size) / stride + 1;
  return n < out ? n : out;
}

// Whether the windows of a maximum lie side by side, in sizes of which each window that is whole is written in one go.
inline bool writes_whole_windows(const PoolGeometry& g) {
  return !g.pad_y && !g.pad_x && g.window_y == g.window_x && g.window_y == g.stride_y && g.window_x == g.stride_x &&
         (g.window_y == 2 || g.window_y == 3);
}

}  // namespace
}  // namespace owl::cpu::OWL_ISA
