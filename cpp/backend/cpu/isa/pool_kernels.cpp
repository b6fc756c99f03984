// Pooling of one plane. A window is clipped to the image; of equal maxima the first in memory order (x fastest) wins; a
// NaN is a maximum.
#include "backend/cpu/isa/nn_kernels.h"
#include "backend/cpu/isa/pool_window.h"

namespace owl::cpu::OWL_ISA {
namespace {

// ---- forward: first along y, whole rows at once, then along x

constexpr std::int64_t kColumns = 512;  // of a row, folded at a time

// y[o] = the fold of row[o * S .. o * S + K), unrolled, so that strided steps become shuffles.
template <class Fold, class T, int K, int S>
void fold_x(T* y, const typename Fold::template Total<T>* row, std::int64_t n, std::int64_t divisor) {
  for (std::int64_t o = 0; o < n; ++o) {
    auto v = Fold::join(row[o * S], row[o * S + 1]);
    if constexpr (K == 3) v = Fold::join(v, row[o * S + 2]);
    y[o] = Fold::template finish<T>(v, divisor);
  }
}
template <class Fold, class T>
using FoldX = void (*)(T* y, const typename Fold::template Total<T>* row, std::int64_t n, std::int64_t divisor);
template <class Fold, class T> FoldX<Fold, T> find_fold_x(const PoolGeometry& g) {
  if (g.window_x == 2 && g.stride_x == 2) return fold_x<Fold, T, 2, 2>;
  if (g.window_x == 3 && g.stride_x == 3) return fold_x<Fold, T, 3, 3>;
  if (g.window_x == 3 && g.stride_x == 2) return fold_x<Fold, T, 3, 2>;
  return nullptr;
}

// Results [ox, end) of a row, from a row of x that is already folded along y and begins at column `from`.
template <class Fold, class T>
void pool_row(T* y, const typename Fold::template Total<T>* row, std::int64_t from, Span v, std::int64_t ox,
              std::int64_t end, const PoolGeometry& g) {
  const auto fold = find_fold_x<Fold, T>(g);
  const std::int64_t room = g.width + g.pad_x - g.window_x;
  const std::int64_t fit = room < 0 ? 0 : room / g.stride_x + 1;  // windows that end inside the image
  const std::int64_t whole_end = fit < end ? fit : end;
  while (ox < end) {
    const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
    if (fold && ox * g.stride_x >= g.pad_x && ox < whole_end) {
      fold(y + ox, row + h.begin - from, whole_end - ox, v.padded * g.window_x);
      ox = whole_end;
      continue;
    }
    auto total = row[h.begin - from];
    for (std::int64_t ix = h.begin + 1; ix < h.end; ++ix) total = Fold::join(total, row[ix - from]);
    y[ox++] = Fold::template finish<T>(total, v.padded * h.padded);
  }
}

// One result, for a window wider than a buffer.
template <class Fold, class T> T pool_one(const T* x, Span v, Span h, std::int64_t width) {
  using Total = typename Fold::template Total<T>;
  Total total = x[v.begin * width + h.begin];
  for (std::int64_t iy = v.begin; iy < v.end; ++iy)
    for (std::int64_t ix = h.begin + (iy == v.begin); ix < h.end; ++ix)
      total = Fold::join(total, Total(x[iy * width + ix]));
  return Fold::template finish<T>(total, v.padded * h.padded);
}

template <class Fold, class T> void pool(T* y, const T* x, const PoolGeometry& g) {
  using Total = typename Fold::template Total<T>;
  Total row[kColumns];
  const std::int64_t at_once = g.window_x > kColumns ? 0 : (kColumns - g.window_x) / g.stride_x + 1;
  for (std::int64_t oy = 0; oy < g.out_height; ++oy, y += g.out_width) {
    const Span v = window(oy, g.stride_y, g.pad_y, g.window_y, g.height);
    if (at_once == 0)
      for (std::int64_t ox = 0; ox < g.out_width; ++ox)
        y[ox] = pool_one<Fold>(x, v, window(ox, g.stride_x, g.pad_x, g.window_x, g.width), g.width);
    for (std::int64_t ox = 0; at_once && ox < g.out_width; ox += at_once) {
      const std::int64_t end = ox + at_once < g.out_width ? ox + at_once : g.out_width;
      const std::int64_t from = window(ox, g.stride_x, g.pad_x, g.window_x, g.width).begin;
      const std::int64_t n = window(end - 1, g.stride_x, g.pad_x, g.window_x, g.width).end - from;
      const T* in = x + v.begin * g.width + from;
      for (std::int64_t i = 0; i < n; ++i) row[i] = in[i];
      for (std::int64_t iy = v.begin + 1; iy < v.end; ++iy) {
        in += g.width;
        for (std::int64_t i = 0; i < n; ++i) row[i] = Fold::join(row[i], Total(in[i]));
      }
      pool_row<Fold>(y, row, from, v, ox, end, g);
    }
  }
}

// ---- backward

// An integer as wide as T, so that vectors of both have the same number of lanes.
template <class T> struct SameWidth { using type = std::int32_t; };
template <> struct SameWidth<double> { using type = std::int64_t; };

// Splits interleaved groups of K elements, and joins them again.
template <int K, class T, std::int64_t N> void split(T (*to)[N], std::int64_t at, const T* from, std::int64_t n) {
  T *a = to[0] + at, *b = to[1] + at, *c = K == 3 ? to[2] + at : nullptr;
#pragma GCC ivdep
  for (std::int64_t o = 0; o < n; ++o) {
    a[o] = from[o * K];
    b[o] = from[o * K + 1];
    if constexpr (K == 3) c[o] = from[o * K + 2];
  }
}
template <int K, class T, std::int64_t N> void merge(T* to, const T (*from)[N], std::int64_t at, std::int64_t n) {
  const T *a = from[0] + at, *b = from[1] + at, *c = K == 3 ? from[2] + at : nullptr;
#pragma GCC ivdep
  for (std::int64_t o = 0; o < n; ++o) {
    to[o * K] = a[o];
    to[o * K + 1] = b[o];
    if constexpr (K == 3) to[o * K + 2] = c[o];
  }
}

// Windows of K x K that do not overlap, `columns` in each of `rows` rows: writes every element of a window, the error
// or 0. Processes as many windows as the buffers hold at a time, and each position in a window by a separate loop over
// windows, so that the compiler vectorises it.
template <class T, int K>
void max_rows_back(T* dx, const T* err, const T* x, const PoolGeometry& g, std::int64_t rows, std::int64_t columns) {
  using Place = typename SameWidth<T>::type;
  constexpr std::int64_t kWindows = 64;
  T value[K * K][kWindows] = {}, error[kWindows] = {}, best[kWindows];
  Place place[kWindows];
  const std::int64_t m = columns < kWindows ? columns : kWindows;  // of a row
  const std::int64_t rows_at_once = columns < kWindows ? kWindows / columns : 1;
  for (std::int64_t oy = 0; oy < rows; oy += rows_at_once) {
    const std::int64_t last = oy + rows_at_once < rows ? oy + rows_at_once : rows;
    for (std::int64_t ox = 0; ox < columns; ox += m) {
      const std::int64_t n = columns - ox < m ? columns - ox : m;
      for (std::int64_t r = oy; r < last; ++r) {
        for (int i = 0; i < K; ++i)
          split<K>(value + i * K, (r - oy) * n, x + (r * K + i) * g.width + ox * K, n);
        for (std::int64_t o = 0; o < n; ++o) error[(r - oy) * n + o] = err[r * g.out_width + ox + o];
      }
      for (std::int64_t o = 0; o < kWindows; ++o) {
        best[o] = value[0][o];
        place[o] = 0;
      }
      for (int j = 1; j < K * K; ++j)
        for (std::int64_t o = 0; o < kWindows; ++o) {
          const bool better = replaces(value[j][o], best[o]);
          place[o] = better ? Place(j) : place[o];
          best[o] = better ? value[j][o] : best[o];
        }
      for (int j = 0; j < K * K; ++j)
        for (std::int64_t o = 0; o < kWindows; ++o) value[j][o] = place[o] == j ? error[o] : T(0);
      for (std::int64_t r = oy; r < last; ++r)
        for (int i = 0; i < K; ++i)
          merge<K>(dx + (r * K + i) * g.width + ox * K, value + i * K, (r - oy) * n, n);
    }
  }
}

template <class T>
using MaxRowsBack = void (*)(T* dx, const T* err, const T* x, const PoolGeometry& g, std::int64_t rows,
                             std::int64_t columns);
template <class T> MaxRowsBack<T> find_max_rows_back(const PoolGeometry& g) {
  if (!writes_whole_windows(g)) return nullptr;
  if (g.window_y == 2) return max_rows_back<T, 2>;
  return max_rows_back<T, 3>;
}

// The position of one window's maximum.
template <class T> std::int64_t place_of_max(const T* x, Span v, Span h, std::int64_t width) {
  std::int64_t place = v.begin * width + h.begin;
  T best = x[place];
  for (std::int64_t iy = v.begin; iy < v.end; ++iy)
    for (std::int64_t at = iy * width + h.begin; at < iy * width + h.end; ++at) {
      const bool better = replaces(x[at], best);
      place = better ? at : place;
      best = better ? x[at] : best;
    }
  return place;
}

// Results [ox, out_width) of row `oy`, for any windows. First computes all columns' maxima and their rows; of equal
// columns the one whose maximum is in the earlier row wins, then the earlier column.
template <class T>
void max_row_back(T* dx, const T* err, const T* x, const PoolGeometry& g, std::int64_t oy, std::int64_t ox) {
  using Place = typename SameWidth<T>::type;
  const Span v = window(oy, g.stride_y, g.pad_y, g.window_y, g.height);
  T top[kColumns];
  Place row[kColumns];
  const std::int64_t at_once = g.window_x > kColumns ? 0 : (kColumns - g.window_x) / g.stride_x + 1;
  if (at_once == 0)
    for (; ox < g.out_width; ++ox)
      dx[place_of_max(x, v, window(ox, g.stride_x, g.pad_x, g.window_x, g.width), g.width)] += err[ox];
  for (; ox < g.out_width; ox += at_once) {
    const std::int64_t end = ox + at_once < g.out_width ? ox + at_once : g.out_width;
    const std::int64_t from = window(ox, g.stride_x, g.pad_x, g.window_x, g.width).begin;
    const std::int64_t n = window(end - 1, g.stride_x, g.pad_x, g.window_x, g.width).end - from;
    const T* in = x + v.begin * g.width + from;
    for (std::int64_t i = 0; i < n; ++i) {
      top[i] = in[i];
      row[i] = 0;
    }
    for (std::int64_t r = 1; r < v.end - v.begin; ++r) {
      in += g.width;
      for (std::int64_t i = 0; i < n; ++i) {
        const bool better = replaces(in[i], top[i]);
        row[i] = better ? static_cast<Place>(r) : row[i];
        top[i] = better ? in[i] : top[i];
      }
    }
    for (std::int64_t o = ox; o < end; ++o) {
      const Span h = window(o, g.stride_x, g.pad_x, g.window_x, g.width);
      std::int64_t column = h.begin - from;
      T best = top[column];
      Place best_row = row[column];
      for (std::int64_t i = column + 1; i < h.end - from; ++i) {
        const bool same = !replaces(top[i], best) & !replaces(best, top[i]);
        const bool better = replaces(top[i], best) | (same & (row[i] < best_row));
        column = better ? i : column;
        best_row = better ? row[i] : best_row;
        best = better ? top[i] : best;
      }
      dx[(v.begin + best_row) * g.width + from + column] += err[o];
    }
  }
}

template <class T> void pool_max_back(T* dx, const T* err, const T* x, const PoolGeometry& g) {
  const auto whole = find_max_rows_back<T>(g);
  const auto whole_y = whole ? whole_windows(g.out_height, g.stride_y, g.window_y, g.height) : 0;
  const auto whole_x = whole ? whole_windows(g.out_width, g.stride_x, g.window_x, g.width) : 0;
  if (whole_y * g.window_y < g.height || whole_x * g.window_x < g.width)
    for (std::int64_t i = 0; i < g.height * g.width; ++i) dx[i] = 0;
  if (whole_y && whole_x) whole(dx, err, x, g, whole_y, whole_x);
  for (std::int64_t oy = 0; oy < g.out_height; ++oy) {
    const auto begin = oy < whole_y ? whole_x : 0;
    if (begin < g.out_width) max_row_back(dx, err + oy * g.out_width, x, g, oy, begin);
  }
}

template <class T> void pool_average_back(T* dx, const T* err, const PoolGeometry& g, double* rows) {
  average_back_rows(dx, g, g.width, rows, [=](double* row, std::int64_t oy) {
    const std::int64_t padded = window(oy, g.stride_y, g.pad_y, g.window_y, g.height).padded;
    for (std::int64_t i = 0; i < g.width; ++i) row[i] = 0;
    for (std::int64_t ox = 0; ox < g.out_width; ++ox) {
      const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
      const T share = err[oy * g.out_width + ox] / static_cast<T>(padded * h.padded);
      for (std::int64_t ix = h.begin; ix < h.end; ++ix) row[ix] += share;
    }
  });
}

template <class T> void fill(NnKernels<T>& k) {
  k.pool_max = pool<Max, T>;
  k.pool_max_back = pool_max_back<T>;
  k.pool_average = pool<Average, T>;
  k.pool_average_back = pool_average_back<T>;
}

}  // namespace

void fill_pool(NnTable& table) {
  fill(table.f32);
  fill(table.f64);
}

}  // namespace owl::cpu::OWL_ISA
