#include "backend/cpu/plain_conv.h"

#include <algorithm>

#include "backend/cpu/gemm.h"

namespace owl::cpu {

namespace {

// Calls element(index in `unfolded`, index in the image or -1 for padding) for a group's channels.
// Unfolded: [out_plane, taps], column-major, taps in the order of w's memory.
template <class Element> void for_each_tap(const ConvGeometry& g, Element element) {
  std::int64_t at = 0;
  for (std::int64_t c = 0; c < g.channels / g.groups; ++c)
    for (std::int64_t ky = 0; ky < g.kernel_y; ++ky)
      for (std::int64_t kx = 0; kx < g.kernel_x; ++kx)
        for (std::int64_t oy = 0; oy < g.out_height; ++oy) {
          const auto iy = oy * g.stride_y - g.pad_y + ky * g.dilation_y;
          const bool row = iy >= 0 && iy < g.height;
          for (std::int64_t ox = 0; ox < g.out_width; ++ox, ++at) {
            const auto ix = ox * g.stride_x - g.pad_x + kx * g.dilation_x;
            element(at, row && ix >= 0 && ix < g.width ? (c * g.height + iy) * g.width + ix : -1);
          }
        }
}

template <class T> struct Unfolded {
  explicit Unfolded(const ConvGeometry& g)
      : scratch(static_cast<std::size_t>(g.out_plane() * g.taps()) * sizeof(T)),
        data(reinterpret_cast<T*>(scratch.take(static_cast<std::size_t>(g.out_plane() * g.taps()) * sizeof(T)))) {}
  void unfold(const ConvGeometry& g, const T* x) {
    for_each_tap(g, [&](std::int64_t at, std::int64_t from) { data[at] = from < 0 ? T(0) : x[from]; });
  }
  ThreadScratch scratch;
  T* data;
};

// The parts of the operands and the result that belong to one group of channels.
struct Group {
  Group(const ConvGeometry& g, std::int64_t i)
      : filters(g.filters / g.groups),
        x(i * g.channels / g.groups * g.plane()),
        w(i * filters * g.taps()),
        y(i * filters * g.out_plane()),
        b(i * filters) {}
  std::int64_t filters, x, w, y, b;
};

}  // namespace

template <class T> void plain_conv(const ConvGeometry& g, const T* x, const T* w, const T* b, T* y) {
  Unfolded<T> u(g);
  const auto places = g.out_plane(), taps = g.taps();
  for (std::int64_t i = 0; i < g.groups; ++i) {
    const Group part(g, i);
    u.unfold(g, x + part.x);
    for (std::int64_t f = 0; f < part.filters; ++f) std::fill_n(y + part.y + f * places, places, b[part.b + f]);
    gemm(places, part.filters, taps, Matrix<const T>{u.data, 1, places}, Matrix<const T>{w + part.w, 1, taps},
         y + part.y, places, true);
  }
}

template <class T> void plain_conv_back_data(const ConvGeometry& g, T* x, const T* w, const T* y) {
  Unfolded<T> u(g);
  const auto places = g.out_plane(), taps = g.taps();
  std::fill_n(x, g.channels * g.plane(), T(0));
  for (std::int64_t i = 0; i < g.groups; ++i) {
    const Group part(g, i);
    gemm(places, taps, part.filters, Matrix<const T>{y + part.y, 1, places}, Matrix<const T>{w + part.w, taps, 1},
         u.data, places, false);
    T* const to = x + part.x;
    for_each_tap(g, [&](std::int64_t at, std::int64_t place) {
      if (place >= 0) to[place] += u.data[at];
    });
  }
}

template <class T> void plain_conv_back_weight(const ConvGeometry& g, const T* x, T* w, const T* y, bool accumulate) {
  Unfolded<T> u(g);
  const auto places = g.out_plane(), taps = g.taps();
  for (std::int64_t i = 0; i < g.groups; ++i) {
    const Group part(g, i);
    u.unfold(g, x + part.x);
    gemm(taps, part.filters, places, Matrix<const T>{u.data, places, 1}, Matrix<const T>{y + part.y, 1, places},
         w + part.w, taps, accumulate);
  }
}

template void plain_conv(const ConvGeometry&, const float*, const float*, const float*, float*);
template void plain_conv(const ConvGeometry&, const double*, const double*, const double*, double*);
template void plain_conv_back_data(const ConvGeometry&, float*, const float*, const float*);
template void plain_conv_back_data(const ConvGeometry&, double*, const double*, const double*);
template void plain_conv_back_weight(const ConvGeometry&, const float*, float*, const float*, bool);
template void plain_conv_back_weight(const ConvGeometry&, const double*, double*, const double*, bool);

}  // namespace owl::cpu
