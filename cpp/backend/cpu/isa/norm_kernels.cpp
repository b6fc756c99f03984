// Normalisation of rows, and its gradient.
#include "backend/cpu/isa/lane_sums.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "ops/math.h"

namespace owl::cpu::OWL_ISA {
namespace {

// The mean is added in double, and split in two, so that numbers far from 0 keep the digits of their differences.
template <class T> struct Moments {
  T high, low, root;

  Moments(const T* x, std::int64_t n, double eps) {
    const auto count = static_cast<double>(n);
    const double mean = sum_of<double>(n, [=](auto at) { return at(x); }) / count;
    const T h = static_cast<T>(mean), l = static_cast<T>(mean - static_cast<double>(h));
    const double squares = sum_of<T>(n, [=](auto at) {
      const auto d = (at(x) - h) - l;
      return d * d;
    });
    high = h;
    low = l;
    root = static_cast<T>(1.0 / math::sqrt(squares / count + eps));
  }
  template <class V> [[gnu::always_inline]] V normed(V x) const { return ((x - high) - low) * root; }
};

template <class T>
void layer_norm(T* y, const T* x, const T* weight, const T* bias, std::int64_t rows, std::int64_t length, double eps) {
  for (std::int64_t r = 0; r < rows; ++r, y += length, x += length) {
    const Moments<T> m(x, length, eps);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < length; ++i) y[i] = m.normed(x[i]) * weight[i] + bias[i];
  }
}

template <class T, bool kToX, bool kToWeight>
void layer_norm_back_rows(T* dx, T* dweight, T* dbias, const T* err, const T* x, const T* weight, std::int64_t rows,
                          std::int64_t length, double eps) {
  const auto count = static_cast<double>(length);
  for (std::int64_t r = 0; r < rows; ++r, err += length, x += length) {
    T* const to_x = kToX ? dx + r * length : nullptr;
    const Moments<T> m(x, length, eps);
    T mean = 0, slope = 0;
    if (kToX) {
      mean = static_cast<T>(sum_of<T>(length, [=](auto at) { return at(err) * at(weight); }) / count);
      slope = static_cast<T>(
          sum_of<T>(length, [=](auto at) { return at(err) * at(weight) * m.normed(at(x)); }) / count);
    }
#pragma GCC ivdep
    for (std::int64_t i = 0; i < length; ++i) {
      const T normed = m.normed(x[i]), e = err[i];
      if (kToX) to_x[i] = m.root * ((e * weight[i] - mean) - normed * slope);
      if (kToWeight) {
        dweight[i] += e * normed;
        dbias[i] += e;
      }
    }
  }
}

template <class T>
void layer_norm_back(T* dx, T* dweight, T* dbias, const T* err, const T* x, const T* weight, std::int64_t rows,
                     std::int64_t length, double eps) {
  const auto run = dx && dweight ? layer_norm_back_rows<T, true, true>
                   : dx          ? layer_norm_back_rows<T, true, false>
                                 : layer_norm_back_rows<T, false, true>;
  run(dx, dweight, dbias, err, x, weight, rows, length, eps);
}

// The fold of mean and variance. Elements are read twice, while they are in the cache: for their mean, and for their
// squares around it.
struct Spread {
  double count, sum, squares;  // squares: the sum of the squared distances from sum / count
};

void join(Spread& a, const Spread& b) {
  if (b.count == 0) return;
  if (a.count > 0) {
    const double d = b.sum / b.count - a.sum / a.count;
    a.squares += d * d * (a.count * b.count / (a.count + b.count));
  }
  a.squares += b.squares;
  a.sum += b.sum;
  a.count += b.count;
}

// The squares around `near`, a rounded mean, moved to the mean itself.
template <class T> Spread spread_of(double count, double sum, double squares, T near) {
  const double d = sum / count - static_cast<double>(near), around = squares - count * d * d;
  return {count, sum, around < 0 ? 0 : around};
}

template <class T> struct SpreadLoops {
  static void init(void* acc, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) static_cast<Spread*>(acc)[i] = {};
  }
  static void row(void* acc, const void* data, std::int64_t n) {
    const T* const x = static_cast<const T*>(data);
    const auto count = static_cast<double>(n);
    const double sum = sum_of<double>(n, [=](auto at) { return at(x); });
    const T near = static_cast<T>(sum / count);
    const double squares = sum_of<T>(n, [=](auto at) { return (at(x) - near) * (at(x) - near); });
    join(*static_cast<Spread*>(acc), spread_of(count, sum, squares, near));
  }
  static void columns(void* acc, const void* data, std::int64_t stride, std::int64_t rows, std::int64_t n) {
    for (std::int64_t first = 0; first < n; first += kWidth)
      block(static_cast<Spread*>(acc) + first, static_cast<const T*>(data) + first, stride, rows,
            n - first < kWidth ? n - first : kWidth);
  }
  static void combine(void* acc, const void* other, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) join(static_cast<Spread*>(acc)[i], static_cast<const Spread*>(other)[i]);
  }
  static void mean(void* out, const void* acc, std::int64_t n, double) {
    const auto* const a = static_cast<const Spread*>(acc);
    for (std::int64_t i = 0; i < n; ++i) static_cast<T*>(out)[i] = static_cast<T>(a[i].sum / a[i].count);
  }
  static void variance(void* out, const void* acc, std::int64_t n, double count) {
    const auto* const a = static_cast<const Spread*>(acc);
    for (std::int64_t i = 0; i < n; ++i) static_cast<T*>(out)[i] = static_cast<T>(a[i].squares / count);
  }

 private:
  static constexpr std::int64_t kWidth = 256;  // adjacent columns

  static void block(Spread* acc, const T* x, std::int64_t stride, std::int64_t rows, std::int64_t n) {
    double sum[kWidth] = {}, squares[kWidth] = {};
    T near[kWidth];
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < n; ++i) sum[i] += static_cast<double>(x[r * stride + i]);
    const auto count = static_cast<double>(rows);
    for (std::int64_t i = 0; i < n; ++i) near[i] = static_cast<T>(sum[i] / count);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < n; ++i) {
        const auto d = static_cast<double>(x[r * stride + i] - near[i]);
        squares[i] += d * d;
      }
    for (std::int64_t i = 0; i < n; ++i) join(acc[i], spread_of(count, sum[i], squares[i], near[i]));
  }
};

template <class T> constexpr Fold spread_fold(void (*finish)(void*, const void*, std::int64_t, double)) {
  using L = SpreadLoops<T>;
  return {sizeof(Spread), L::init, L::row, L::columns, L::combine, finish};
}

template <class T> void fill(NnKernels<T>& k) {
  k.mean = spread_fold<T>(SpreadLoops<T>::mean);
  k.variance = spread_fold<T>(SpreadLoops<T>::variance);
  k.layer_norm = layer_norm<T>;
  k.layer_norm_back = layer_norm_back<T>;
}

}  // namespace

void fill_norm(NnTable& table) {
  fill(table.f32);
  fill(table.f64);
}

}  // namespace owl::cpu::OWL_ISA
