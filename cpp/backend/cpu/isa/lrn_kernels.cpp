// Local response normalisation across channels: y = x * s^-beta with s = 1 + alpha * (sum of x^2 over the window).
#include "backend/cpu/isa/nn_kernels.h"
#include "ops/math.h"

namespace owl::cpu::OWL_ISA {
namespace {

constexpr std::int64_t kStep = 128;  // positions at a time, so that the sums stay in the L1 cache

// s^-beta; the usual exponents need only square roots.
template <class T> void inverse_power(T* s, std::int64_t n, T beta) {
  if (beta == T(0.75)) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) {
      const T root = math::sqrt(s[i]);
      s[i] = T(1) / (root * math::sqrt(root));
    }
  } else if (beta == T(0.5)) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) s[i] = T(1) / math::sqrt(s[i]);
  } else if (beta == T(1)) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) s[i] = T(1) / s[i];
  } else {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) s[i] = math::pow(s[i], -beta);
  }
}

// to[i] = the sum of term(c * step + i) over the channels c of the window of `channel`, for i < n. Summed separately
// for each channel, because a running sum would drift, and in double, because windows may have thousands of channels.
template <class T, class Term>
[[gnu::always_inline]] inline void window_sums(T* to, std::int64_t n, std::int64_t channel, std::int64_t channels,
                                               std::int64_t half, std::int64_t step, Term term) {
  const std::int64_t first = channel > half ? channel - half : 0;
  const std::int64_t last = channel + half + 1 < channels ? channel + half + 1 : channels;
  for (std::int64_t begin = 0; begin < n; begin += kStep) {
    const std::int64_t width = n - begin < kStep ? n - begin : kStep;
    double sum[kStep];
    for (std::int64_t i = 0; i < width; ++i) sum[i] = 0;
    for (std::int64_t c = first; c < last; ++c)
      for (std::int64_t i = 0; i < width; ++i) sum[i] += static_cast<double>(term(c * step + begin + i));
    for (std::int64_t i = 0; i < width; ++i) to[begin + i] = static_cast<T>(sum[i]);
  }
}

// s[i] = 1 + alpha * sum of x^2 over the window of `channel`.
template <class T>
void scales(T* s, const T* x, std::int64_t n, std::int64_t channel, std::int64_t channels, std::int64_t plane,
            std::int64_t half, T alpha) {
  window_sums(s, n, channel, channels, half, plane, [=](std::int64_t at) { return x[at] * x[at]; });
  for (std::int64_t i = 0; i < n; ++i) s[i] = T(1) + alpha * s[i];
}

template <class T>
void lrn(T* y, const T* x, std::int64_t positions, std::int64_t channels, std::int64_t plane, std::int64_t half,
         T alpha, T beta) {
  T s[kStep];
  for (std::int64_t begin = 0; begin < positions; begin += kStep) {
    const std::int64_t n = positions - begin < kStep ? positions - begin : kStep;
    for (std::int64_t c = 0; c < channels; ++c) {
      scales(s, x + begin, n, c, channels, plane, half, alpha);
      inverse_power(s, n, beta);
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) y[c * plane + begin + i] = x[c * plane + begin + i] * s[i];
    }
  }
}

// dx = err * s^-beta - 2 * alpha * beta * x * (sum of err * y / s over the window).
template <class T>
void lrn_back(T* dx, const T* err, const T* x, const T* y, std::int64_t positions, std::int64_t channels,
              std::int64_t plane, std::int64_t half, T alpha, T beta, T* scratch) {
  T* power = scratch;                         // s^-beta, channel by channel
  T* ratio = scratch + positions * channels;  // err * y / s
  for (std::int64_t c = 0; c < channels; ++c) {
    T *p = power + c * positions, *r = ratio + c * positions;
    scales(p, x, positions, c, channels, plane, half, alpha);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < positions; ++i) r[i] = err[c * plane + i] * y[c * plane + i] / p[i];
    inverse_power(p, positions, beta);
  }
  const T factor = T(2) * alpha * beta;
  for (std::int64_t c = 0; c < channels; ++c) {
    T* out = dx + c * plane;
    window_sums(out, positions, c, channels, half, positions, [=](std::int64_t at) { return ratio[at]; });
#pragma GCC ivdep
    for (std::int64_t i = 0; i < positions; ++i)
      out[i] = err[c * plane + i] * power[c * positions + i] - factor * x[c * plane + i] * out[i];
  }
}

}  // namespace

void fill_lrn(NnTable& table) {
  table.f32.lrn = lrn<float>;
  table.f32.lrn_back = lrn_back<float>;
  table.f64.lrn = lrn<double>;
  table.f64.lrn_back = lrn_back<double>;
}

}  // namespace owl::cpu::OWL_ISA
