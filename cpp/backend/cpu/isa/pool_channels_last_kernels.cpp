// Pooling of one image whose channels vary fastest: vectors run over channels. The order of every sum and comparison is
// that of pool_kernels.cpp, so that a result's bits do not depend on the layout.

#include "backend/cpu/isa/nn_kernels.h"
#include "backend/cpu/isa/pool_window.h"

namespace owl::cpu::OWL_ISA {
namespace {

constexpr std::int64_t kChannels = 64;  // looked at together: what the places of maxima take of the first cache

// Folds along y into a row of columns, then along x. `row`: width * channels elements.
template <class Fold>
void pool(float* y, const float* x, const PoolGeometry& g, std::int64_t channels, float* row) {
  const std::int64_t line = g.width * channels;
  for (std::int64_t oy = 0; oy < g.out_height; ++oy) {
    const Span v = window(oy, g.stride_y, g.pad_y, g.window_y, g.height);
    const float* in = x + v.begin * line;
    for (std::int64_t i = 0; i < line; ++i) row[i] = in[i];
    for (std::int64_t iy = v.begin + 1; iy < v.end; ++iy) {
      in += line;
      for (std::int64_t i = 0; i < line; ++i) row[i] = Fold::join(row[i], in[i]);
    }
    for (std::int64_t ox = 0; ox < g.out_width; ++ox, y += channels) {
      const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
      const std::int64_t divisor = v.padded * h.padded;
      const float* column = row + h.begin * channels;
      for (std::int64_t c = 0; c < channels; ++c) {
        float total = column[c];
        for (std::int64_t i = 1; i < h.end - h.begin; ++i) total = Fold::join(total, column[i * channels + c]);
        y[c] = Fold::finish(total, divisor);
      }
    }
  }
}

// The error of one window and `n` channels to the first of the maxima: as the only one who writes there, or added.
template <bool only>
void max_window_back(float* dx, const float* err, const float* x, Span v, Span h, std::int64_t width,
                     std::int64_t channels, std::int64_t n) {
  float best[kChannels];
  std::int32_t place[kChannels];
  const auto at = [&](std::int64_t iy, std::int64_t ix) { return (iy * width + ix) * channels; };
  const float* first = x + at(v.begin, h.begin);
  for (std::int64_t c = 0; c < n; ++c) {
    best[c] = first[c];
    place[c] = 0;
  }
  std::int32_t i = 0;
  for (std::int64_t iy = v.begin; iy < v.end; ++iy)
    for (std::int64_t ix = h.begin; ix < h.end; ++ix, ++i) {
      const float* in = x + at(iy, ix);
      for (std::int64_t c = 0; c < n; ++c) {
        const bool better = replaces(in[c], best[c]);
        place[c] = better ? i : place[c];
        best[c] = better ? in[c] : best[c];
      }
    }
  i = 0;
  for (std::int64_t iy = v.begin; iy < v.end; ++iy)
    for (std::int64_t ix = h.begin; ix < h.end; ++ix, ++i) {
      float* out = dx + at(iy, ix);
#pragma GCC ivdep
      for (std::int64_t c = 0; c < n; ++c) {
        const float share = place[c] == i ? err[c] : 0.0f;
        out[c] = only ? share : out[c] + share;
      }
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
      const auto back = oy < whole_y && ox < whole_x ? max_window_back<true> : max_window_back<false>;
      for (std::int64_t c = 0; c < channels; c += kChannels)
        back(dx + c, err + c, x + c, v, h, g.width, channels, channels - c < kChannels ? channels - c : kChannels);
    }
  }
}

// Every result's share goes to a row first; that is added to all rows of the window.
void pool_average_back(float* dx, const float* err, const PoolGeometry& g, std::int64_t channels, float* row) {
  const std::int64_t line = g.width * channels;
  for (std::int64_t i = 0; i < g.height * line; ++i) dx[i] = 0;
  for (std::int64_t oy = 0; oy < g.out_height; ++oy) {
    const Span v = window(oy, g.stride_y, g.pad_y, g.window_y, g.height);
    for (std::int64_t i = 0; i < line; ++i) row[i] = 0;
    for (std::int64_t ox = 0; ox < g.out_width; ++ox, err += channels) {
      const Span h = window(ox, g.stride_x, g.pad_x, g.window_x, g.width);
      const auto divisor = static_cast<float>(v.padded * h.padded);
      for (std::int64_t ix = h.begin; ix < h.end; ++ix)
        for (std::int64_t c = 0; c < channels; ++c) row[ix * channels + c] += err[c] / divisor;
    }
    for (std::int64_t iy = v.begin; iy < v.end; ++iy)
      for (std::int64_t i = 0; i < line; ++i) dx[iy * line + i] += row[i];
  }
}

}  // namespace

void fill_pool_channels_last(NnTable& table) {
  table.channels_last = {pool<Max>, pool<Average>, pool_max_back, pool_average_back};
}

}  // namespace owl::cpu::OWL_ISA
