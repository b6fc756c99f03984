// Softmax, its logarithm and their gradients, and sums: one row, or one column of a block, is one distribution.
#include "backend/cpu/isa/lane_sums.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "ops/math.h"

namespace owl::cpu::OWL_ISA {
namespace {

constexpr std::int64_t kLong = 256;      // from this length on a single row fills vectors
constexpr std::int64_t kNear = 4096;
constexpr std::int64_t kSegment = 1024;  // elements of shorter rows whose exponentials are computed together
constexpr std::int64_t kFewRows = 16;  // may be added up in T as well

template <class T> double sum(const T* x, std::int64_t n) {
  return sum_of<T>(n, [=](auto at) { return at(x); });
}
template <class T> double dot(const T* x, const T* y, std::int64_t n) {
  return sum_of<T>(n, [=](auto at) { return at(x) * at(y); });
}

// May ignore a NaN: subtracting the maximum from it and summing propagates it to the whole row.
template <std::int64_t lanes, class T> [[gnu::noinline]] T largest_of_lanes(const T* x, std::int64_t n) {
  T lane[lanes];
  for (auto& v : lane) v = -__builtin_inf();
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (std::int64_t j = 0; j < lanes; ++j) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  for (std::int64_t j = 0; i + j < n; ++j) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  for (std::int64_t width = lanes / 2; width > 0; width /= 2)
    for (std::int64_t j = 0; j < width; ++j) lane[j] = lane[j + width] > lane[j] ? lane[j + width] : lane[j];
  return lane[0];
}
template <class T> T largest(const T* x, std::int64_t n) {
  if (n < kLanes) {
    T top = x[0];
    for (std::int64_t i = 1; i < n; ++i) top = x[i] > top ? x[i] : top;
    return top;
  }
  return n < kLong ? largest_of_lanes<kLanes>(x, n) : largest_of_lanes<4 * kLanes>(x, n);
}

template <class T> void exponentials(T* y, const T* x, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] = math::exp_not_positive(x[i]);
}

// Short rows: the exponentials of several at once, so that they fill vectors too.
template <class T> void softmax_short(T* y, const T* x, std::int64_t rows, std::int64_t length, bool logarithm) {
  T shifted[kSegment] = {}, e[kSegment];
  const std::int64_t n = rows * length;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T top = largest(x + r * length, length);
    for (std::int64_t i = r * length; i < (r + 1) * length; ++i) shifted[i] = x[i] - top;
  }
  exponentials(e, shifted, n);
  for (std::int64_t r = 0; r < rows; ++r) {
    const T total = static_cast<T>(sum(e + r * length, length));
    const std::int64_t begin = r * length, end = begin + length;
    if (logarithm) {
      const T shift = math::ln(total);
      for (std::int64_t i = begin; i < end; ++i) y[i] = shifted[i] - shift;
    } else {
      for (std::int64_t i = begin; i < end; ++i) y[i] = e[i] / total;
    }
  }
}

// One block of a row: its exponentials, added to the lanes' sums.
template <class T, bool kKeep>
[[gnu::always_inline]] inline void add_exponentials(T* y, const T* x, T top, T* lane) {
#pragma GCC ivdep
  for (std::int64_t j = 0; j < kLanes; ++j) {
    const T e = math::exp_not_positive(x[j] - top);
    lane[j] += e;
    if (kKeep) y[j] = e;
  }
}

// The sum of a row's exponentials, which kKeep stores in y. Meanwhile prefetches the next row, or the continuation of a
// row larger than the caches.
template <class T, bool kKeep> T sum_exponentials(T* y, const T* x, T top, std::int64_t n) {
  const T* const next = x + (n < kNear ? n : kNear);
  LaneSums<T> s;
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    const std::int64_t end = n - i < kPart ? n : i + kPart;
    for (; i + kLanes <= end; i += kLanes) {
      __builtin_prefetch(next + i);
      add_exponentials<T, kKeep>(kKeep ? y + i : nullptr, x + i, top, s.lane);
    }
    s.next_part();
  }
  if (i < n) {
    T rest[kLanes];
    for (std::int64_t j = 0; j < kLanes; ++j) rest[j] = i + j < n ? x[i + j] : -__builtin_inf();
    add_exponentials<T, true>(rest, rest, top, s.lane);
    if (kKeep)
      for (std::int64_t j = 0; i + j < n; ++j) y[i + j] = rest[j];
  }
  return static_cast<T>(s.join());
}

template <class T> void softmax_long(T* y, const T* x, std::int64_t length, bool logarithm) {
  const T top = largest(x, length);
  if (logarithm) {
    const T shift = math::ln(sum_exponentials<T, false>(nullptr, x, top, length));
#pragma GCC ivdep
    for (std::int64_t i = 0; i < length; ++i) y[i] = (x[i] - top) - shift;
  } else {
    const T total = sum_exponentials<T, true>(y, x, top, length);
    for (std::int64_t i = 0; i < length; ++i) y[i] /= total;
  }
}

template <class T> void softmax(T* y, const T* x, std::int64_t rows, std::int64_t length, bool logarithm) {
  if (length >= kLong) {
    for (std::int64_t r = 0; r < rows; ++r) softmax_long(y + r * length, x + r * length, length, logarithm);
    return;
  }
  const std::int64_t step = kSegment / length;
  for (std::int64_t r = 0; r < rows; r += step)
    softmax_short(y + r * length, x + r * length, rows - r < step ? rows - r : step, length, logarithm);
}

template <class T> void softmax_back(T* dx, const T* err, const T* y, std::int64_t rows, std::int64_t length) {
  for (std::int64_t r = 0; r < rows; ++r, dx += length, err += length, y += length) {
    const T mean = static_cast<T>(dot(err, y, length));
#pragma GCC ivdep
    for (std::int64_t i = 0; i < length; ++i) dx[i] = y[i] * (err[i] - mean);
  }
}

template <class T> void log_softmax_back(T* dx, const T* err, const T* x, std::int64_t rows, std::int64_t length) {
  softmax(dx, x, rows, length, false);
  for (std::int64_t r = 0; r < rows; ++r, dx += length, err += length) {
    const T total = static_cast<T>(sum(err, length));
#pragma GCC ivdep
    for (std::int64_t i = 0; i < length; ++i) dx[i] = err[i] - dx[i] * total;
  }
}

template <class T>
void softmax_columns(T* y, const T* x, std::int64_t columns, std::int64_t length, std::int64_t stride,
                     bool logarithm) {
  T top[kSoftmaxColumns], total[kSoftmaxColumns], e[kSoftmaxColumns];
  double sums[kSoftmaxColumns] = {};
  for (std::int64_t i = 0; i < columns; ++i) top[i] = -__builtin_inf();
  for (std::int64_t j = 0; j < length; ++j)
    for (std::int64_t i = 0; i < columns; ++i) top[i] = x[j * stride + i] > top[i] ? x[j * stride + i] : top[i];
  for (std::int64_t j = 0; j < length; ++j) {
    for (std::int64_t i = 0; i < columns; ++i) e[i] = x[j * stride + i] - top[i];
    exponentials(e, e, columns);
    for (std::int64_t i = 0; i < columns; ++i) sums[i] += static_cast<double>(e[i]);
    if (!logarithm)
      for (std::int64_t i = 0; i < columns; ++i) y[j * stride + i] = e[i];
  }
  for (std::int64_t i = 0; i < columns; ++i) total[i] = static_cast<T>(sums[i]);
  if (logarithm)
    for (std::int64_t i = 0; i < columns; ++i) total[i] = math::ln(total[i]);
  for (std::int64_t j = 0; j < length; ++j) {
    T* out = y + j * stride;
    const T* in = x + j * stride;
    if (logarithm) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < columns; ++i) out[i] = (in[i] - top[i]) - total[i];
    } else {
      for (std::int64_t i = 0; i < columns; ++i) out[i] /= total[i];
    }
  }
}

template <class T>
void softmax_back_columns(T* dx, const T* err, const T* y, std::int64_t columns, std::int64_t length,
                          std::int64_t stride) {
  double sums[kSoftmaxColumns] = {};
  for (std::int64_t j = 0; j < length; ++j)
    for (std::int64_t i = 0; i < columns; ++i) sums[i] += static_cast<double>(err[j * stride + i] * y[j * stride + i]);
  T mean[kSoftmaxColumns];
  for (std::int64_t i = 0; i < columns; ++i) mean[i] = static_cast<T>(sums[i]);
  for (std::int64_t j = 0; j < length; ++j) {
    T* out = dx + j * stride;
    const T *e = err + j * stride, *p = y + j * stride;
#pragma GCC ivdep
    for (std::int64_t i = 0; i < columns; ++i) out[i] = p[i] * (e[i] - mean[i]);
  }
}

template <class T>
void log_softmax_back_columns(T* dx, const T* err, const T* x, std::int64_t columns, std::int64_t length,
                              std::int64_t stride) {
  softmax_columns(dx, x, columns, length, stride, false);
  double sums[kSoftmaxColumns] = {};
  for (std::int64_t j = 0; j < length; ++j)
    for (std::int64_t i = 0; i < columns; ++i) sums[i] += static_cast<double>(err[j * stride + i]);
  T total[kSoftmaxColumns];
  for (std::int64_t i = 0; i < columns; ++i) total[i] = static_cast<T>(sums[i]);
  for (std::int64_t j = 0; j < length; ++j) {
    T* out = dx + j * stride;
    const T* e = err + j * stride;
#pragma GCC ivdep
    for (std::int64_t i = 0; i < columns; ++i) out[i] = e[i] - out[i] * total[i];
  }
}

constexpr std::int64_t kBlockOfChannels = 32;

// join_lanes for each channel; `lanes`: their number.
template <class T> void join_channels(double* sums, T (*lane)[kBlockOfChannels], std::int64_t lanes, std::int64_t width) {
  for (std::int64_t half = lanes / 2; half > 0; half /= 2)
    for (std::int64_t j = 0; j < half; ++j)
      for (std::int64_t c = 0; c < width; ++c) lane[j][c] += lane[j + half][c];
  for (std::int64_t c = 0; c < width; ++c) sums[c] = static_cast<double>(lane[0][c]);
}

// kWidth: the number of channels as the compiler knows it, or 0.
template <int kWidth>
void sum_some_channels(double* sums, const float* x, std::int64_t n, std::int64_t stride, std::int64_t channels) {
  const std::int64_t width = kWidth ? kWidth : channels;
  double total[kLanes][kBlockOfChannels] = {};
  const std::int64_t lanes = n < kLanes ? 1 : kLanes;
  std::int64_t begin = 0;
  do {
    float lane[kLanes][kBlockOfChannels] = {};
    const std::int64_t end = n - begin < kPart ? n : begin + kPart;
    for (std::int64_t i = begin; i < end; ++i) {
      float* const to = lane[i & (lanes - 1)];
      for (std::int64_t c = 0; c < width; ++c) to[c] += x[i * stride + c];
    }
    if (n <= kPart) join_channels(sums, lane, lanes, width);
    for (std::int64_t j = 0; j < lanes; ++j)
      for (std::int64_t c = 0; c < width; ++c) total[j][c] += static_cast<double>(lane[j][c]);
    begin += kPart;
  } while (begin < n);
  if (n > kPart) join_channels(sums, total, lanes, width);
}

// Sums each channel in the same order as `sum`.
void sum_channels(double* sums, const float* x, std::int64_t n, std::int64_t stride, std::int64_t channels) {
  for (; channels >= kBlockOfChannels; channels -= kBlockOfChannels, sums += kBlockOfChannels, x += kBlockOfChannels)
    sum_some_channels<kBlockOfChannels>(sums, x, n, stride, kBlockOfChannels);
  if (channels > 0) sum_some_channels<0>(sums, x, n, stride, channels);
}

template <class T> void sum_rows(T* dst, const T* src, std::int64_t n, std::int64_t rows, std::int64_t stride) {
  if (rows <= kFewRows) {
    for (std::int64_t i = 0; i < n; ++i) dst[i] = src[i];
    for (std::int64_t k = 1; k < rows; ++k)
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) dst[i] += src[k * stride + i];
    return;
  }
  for (std::int64_t begin = 0; begin < n; begin += kPart, dst += kPart, src += kPart) {
    const std::int64_t width = n - begin < kPart ? n - begin : kPart;
    double total[kPart];
    for (std::int64_t i = 0; i < width; ++i) total[i] = 0;
    for (std::int64_t k = 0; k < rows; ++k)
      for (std::int64_t i = 0; i < width; ++i) total[i] += static_cast<double>(src[k * stride + i]);
    for (std::int64_t i = 0; i < width; ++i) dst[i] = static_cast<T>(total[i]);
  }
}

template <class T> void fill(NnKernels<T>& k) {
  k.softmax = softmax<T>;
  k.softmax_back = softmax_back<T>;
  k.log_softmax_back = log_softmax_back<T>;
  k.softmax_columns = softmax_columns<T>;
  k.softmax_back_columns = softmax_back_columns<T>;
  k.log_softmax_back_columns = log_softmax_back_columns<T>;
  k.sum = sum<T>;
  k.sum_rows = sum_rows<T>;
}

}  // namespace

void fill_softmax(NnTable& table) {
  fill(table.f32);
  fill(table.f64);
  table.sum_channels = sum_channels;
}

}  // namespace owl::cpu::OWL_ISA
