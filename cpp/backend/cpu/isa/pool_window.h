// Shared by the pooling kernels of both layouts. Compiled once per instruction set, like them.
#pragma once

#include <cstdint>

#include "backend/cpu/isa/nn_kernels.h"
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

// Whether b replaces the maximum a: larger, or the first NaN (a NaN is never replaced).
template <class T> inline bool replaces(T b, T a) { return (b > a) | ((b != b) & (a == a)); }
template <class T> inline T larger(T a, T b) {
  a = b > a ? b : a;
  return b != b ? b : a;
}

// The folds of a window's elements. Averages are summed in double, because windows may have millions of elements.
struct Max {
  template <class T> using Total = T;
  template <class T> static T join(T a, T b) { return larger(a, b); }
  template <class T> static T finish(T x, std::int64_t) { return x; }
};
struct Average {
  template <class T> using Total = double;
  static double join(double a, double b) { return a + b; }
  template <class T> static T finish(double x, std::int64_t n) { return static_cast<T>(x / static_cast<double>(n)); }
};

// The windows along one axis that cover a position: [first, last]; none if last < first.
struct Covering {
  std::int64_t first, last;
};
inline Covering covering(std::int64_t place, std::int64_t stride, std::int64_t pad, std::int64_t size,
                         std::int64_t out) {
  const std::int64_t at = place + pad, last = at / stride;
  return {at < size ? 0 : (at - size) / stride + 1, last < out ? last : out - 1};
}

// The gradient of an average: dx[iy] is the sum, in double, of the shares of the rows of windows that cover iy.
// share(row, oy) fills a row of `line` doubles with the shares of window row oy in any row that it covers. `rows`:
// average_rows_kept(g) rows, because a window row is computed once and kept until the last row that it covers.
template <class T, class Share>
inline void average_back_rows(T* dx, const PoolGeometry& g, std::int64_t line, double* rows, Share share) {
  constexpr std::int64_t kPart = 512;
  const std::int64_t kept = average_rows_kept(g);
  std::int64_t made = 0;
  for (std::int64_t iy = 0; iy < g.height; ++iy, dx += line) {
    const Covering c = covering(iy, g.stride_y, g.pad_y, g.window_y, g.out_height);
    for (; made <= c.last; ++made) share(rows + made % kept * line, made);
    const auto row_of = [=](std::int64_t k) { return rows + (c.first + k) % kept * line; };
    if (c.last == c.first) {
      const double* a = row_of(0);
      for (std::int64_t i = 0; i < line; ++i) dx[i] = static_cast<T>(a[i]);
      continue;
    }
    if (c.last == c.first + 1) {
      const double *a = row_of(0), *b = row_of(1);
      for (std::int64_t i = 0; i < line; ++i) dx[i] = static_cast<T>(a[i] + b[i]);
      continue;
    }
    if (c.last == c.first + 2) {
      const double *a = row_of(0), *b = row_of(1), *d = row_of(2);
      for (std::int64_t i = 0; i < line; ++i) dx[i] = static_cast<T>((a[i] + b[i]) + d[i]);
      continue;
    }
    for (std::int64_t begin = 0; begin < line; begin += kPart) {
      const std::int64_t n = line - begin < kPart ? line - begin : kPart;
      double total[kPart];
      for (std::int64_t i = 0; i < n; ++i) total[i] = 0;
      for (std::int64_t oy = c.first; oy <= c.last; ++oy) {
        const double* row = rows + oy % kept * line + begin;
        for (std::int64_t i = 0; i < n; ++i) total[i] += row[i];
      }
      for (std::int64_t i = 0; i < n; ++i) dx[begin + i] = static_cast<T>(total[i]);
    }
  }
}

// The number of windows of an unpadded axis, from the first, that are entirely inside.
inline std::int64_t whole_windows(std::int64_t out, std::int64_t stride, std::int64_t size, std::int64_t length) {
  const std::int64_t n = length < size ? 0 : (length - size) / stride + 1;
  return n < out ? n : out;
}

// Whether the windows of a maximum are adjacent and of a size for which each complete window is written at once.
inline bool writes_whole_windows(const PoolGeometry& g) {
  return !g.pad_y && !g.pad_x && g.window_y == g.window_x && g.window_y == g.stride_y && g.window_x == g.stride_x &&
         (g.window_y == 2 || g.window_y == 3);
}

}  // namespace
}  // namespace owl::cpu::OWL_ISA
