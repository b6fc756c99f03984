// Local response normalisation across channels: y = x * s^-beta with s = 1 + alpha * (sum of x^2 over the window).

#include "backend/cpu/isa/nn_kernels.h"
#include "ops/math.h"

namespace owl::cpu::OWL_ISA {
namespace {

constexpr std::int64_t kStep = 128;  // positions at once, so that the sums stay in the first cache

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

// s[i] = 1 + alpha * sum of x^2 over the window of `channel`. Summed anew for each channel: a running sum would drift.
template <class T>
void window_sums(T* s, const T* x, std::int64_t n, std::int64_t channel, std::int64_t channels, std::int64_t plane,
                 std::int64_t half, T alpha) {
  for (std::int64_t i = 0; i < n; ++i) s[i] = 0;
  const std::int64_t begin = channel > half ? channel - half : 0;
  const std::int64_t end = channel + half + 1 < channels ? channel + half + 1 : channels;
  for (std::int64_t c = begin; c < end; ++c)
    for (std::int64_t i = 0; i < n; ++i) s[i] += x[c * plane + i] * x[c * plane + i];
  for (std::int64_t i = 0; i < n; ++i) s[i] = T(1) + alpha * s[i];
}

template <class T>
void lrn(T* y, const T* x, std::int64_t positions, std::int64_t channels, std::int64_t plane, std::int64_t half,
         T alpha, T beta) {
  T s[kStep];
  for (std::int64_t begin = 0; begin < positions; begin += kStep) {
    const std::int64_t n = positions - begin < kStep ? positions - begin : kStep;
    for (std::int64_t c = 0; c < channels; ++c) {
      window_sums(s, x + begin, n, c, channels, plane, half, alpha);
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
    window_sums(p, x, positions, c, channels, plane, half, alpha);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < positions; ++i) r[i] = err[c * plane + i] * y[c * plane + i] / p[i];
    inverse_power(p, positions, beta);
  }
  const T factor = T(2) * alpha * beta;
  for (std::int64_t c = 0; c < channels; ++c) {
    const std::int64_t begin = c > half ? c - half : 0;
    const std::int64_t end = c + half + 1 < channels ? c + half + 1 : channels;
    T* out = dx + c * plane;
    for (std::int64_t i = 0; i < positions; ++i) out[i] = 0;
    for (std::int64_t j = begin; j < end; ++j)
#pragma GCC ivdep
      for (std::int64_t i = 0; i < positions; ++i) out[i] += ratio[j * positions + i];
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
