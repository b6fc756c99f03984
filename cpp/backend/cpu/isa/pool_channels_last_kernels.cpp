// Pooling of one image with channels last: vectors run over channels. The order of every sum and comparison is that of
// pool_kernels.cpp, so that a result's bits do not depend on the layout.
#include "backend/cpu/isa/nn_kernels.h"
#include "backend/cpu/isa/pool_window.h"

namespace owl::cpu::OWL_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
using Floats [[gnu::vector_size(kBytes)]] = float;
using Places [[gnu::vector_size(kBytes)]] = std::int32_t;

template <class F> F load(const float* p) {
  F v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class F> void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }

// Folds along y into a row of columns, then along x.
template <class Fold>
void pool(float* y, const float* x, const PoolGeometry& g, std::int64_t channels, double* space) {
  using Total = typename Fold::template Total<float>;
  auto* const row = reinterpret_cast<Total*>(space);
  const std::int64_t line = g.width * channels;
  for (std::int64_t oy = 0; oy < g.out_height; ++oy) {
    const Span v = window(oy, g.stride_y, g.pad_y, g.window_y, g.height);
    const float* in = x + v.begin * line;
    for (std::int64_t i = 0; i < line; ++i) row[i] = in[i];
    for (std::int64_t iy = v.begin + 1; iy < v.end; ++iy) {
      in += line;
      for (std::int64_t i = 0; i < line; ++i) row[i] = Fold::join(row[i], Total(in[i]));
    }
    for (std::int64_t ox = 0; ox < g.out_width; ++ox, y += channels) {
      const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
      const std::int64_t divisor = v.padded * h.padded;
      const Total* column = row + h.begin * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        Total total = column[c];
        for (std::int64_t i = 1; i < h.end - h.begin; ++i) total = Fold::join(total, column[i * channels + c]);
        y[c] = Fold::template finish<float>(total, divisor);
      }
    }
  }
}

// Writes the error of one window to its first maximum, for a vector of channels or one channel; with `only` as the only
// window there, otherwise added.
template <bool only, class F, class Place>
void max_window_back(float* dx, const float* err, const float* x, Span v, Span h, std::int64_t width,
                     std::int64_t channels) {
  const auto at = [&](std::int64_t iy, std::int64_t ix) { return (iy * width + ix) * channels; };
  F best = load<F>(x + at(v.begin, h.begin));
  Place place{}, i{};
  for (std::int64_t iy = v.begin; iy < v.end; ++iy)
    for (std::int64_t ix = h.begin; ix < h.end; ++ix, i += 1) {
      const F in = load<F>(x + at(iy, ix));
      const Place better = (in > best) | ((in != in) & (best == best));  // as in `replaces`
      place = better ? i : place;
      best = better ? in : best;
    }
  const F all = load<F>(err), none{};
  i = Place{};
  for (std::int64_t iy = v.begin; iy < v.end; ++iy)
    for (std::int64_t ix = h.begin; ix < h.end; ++ix, i += 1) {
      float* const out = dx + at(iy, ix);
      const F share = place == i ? all : none;
      store<F>(out, only ? share : load<F>(out) + share);
    }
}

void pool_max_back(float* dx, const float* err, const float* x, const PoolGeometry& g, std::int64_t channels) {
  const bool apart = writes_whole_windows(g);
  const auto whole_y = apart ? whole_windows(g.out_height, g.stride_y, g.window_y, g.height) : 0;
  const auto whole_x = apart ? whole_windows(g.out_width, g.stride_x, g.window_x, g.width) : 0;
  if (whole_y * g.window_y < g.height || whole_x * g.window_x < g.width)
    for (std::int64_t i = 0; i < g.height * g.width * channels; ++i) dx[i] = 0;
  for (std::int64_t oy = 0; oy < g.out_height; ++oy) {
    const Span v = window(oy, g.stride_y, g.pad_y, g.window_y, g.height);
    for (std::int64_t ox = 0; ox < g.out_width; ++ox, err += channels) {
      const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
      const bool only = oy < whole_y && ox < whole_x;
      const auto some = only ? max_window_back<true, Floats, Places> : max_window_back<false, Floats, Places>;
      const auto one = only ? max_window_back<true, float, std::int32_t> : max_window_back<false, float, std::int32_t>;
      constexpr std::int64_t lanes = sizeof(Floats) / sizeof(float);
      std::int64_t c = 0;
      for (; c + lanes <= channels; c += lanes) some(dx + c, err + c, x + c, v, h, g.width, channels);
      for (; c < channels; ++c) one(dx + c, err + c, x + c, v, h, g.width, channels);
    }
  }
}

void pool_average_back(float* dx, const float* err, const PoolGeometry& g, std::int64_t channels, double* rows) {
  const std::int64_t line = g.width * channels;
  average_back_rows(dx, g, line, rows, [=](double* row, std::int64_t oy) {
    const std::int64_t padded = window(oy, g.stride_y, g.pad_y, g.window_y, g.height).padded;
    const float* from = err + oy * g.out_width * channels;
    for (std::int64_t i = 0; i < line; ++i) row[i] = 0;
    for (std::int64_t ox = 0; ox < g.out_width; ++ox, from += channels) {
      const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
      const auto divisor = static_cast<float>(padded * h.padded);
      for (std::int64_t ix = h.begin; ix < h.end; ++ix)
        for (std::int64_t c = 0; c < channels; ++c) row[ix * channels + c] += from[c] / divisor;
    }
  });
}

}  // namespace

void fill_pool_channels_last(NnTable& table) {
  table.channels_last = {pool<Max>, pool<Average>, pool_max_back, pool_average_back};
}

}  // namespace owl::cpu::OWL_ISA
