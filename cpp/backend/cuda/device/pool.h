// Pooling of planes and its gradient, with the CPU's rules (backend/cpu/isa/pool_kernels.cpp): a window is clipped to
// the image; of equal maxima the first in memory order (x fastest) wins; a NaN is a maximum; an average divides by the
// part inside the padded image. The order of every sum is the CPU's.
//
// Defined in front: T and R, the elements' type; Coordinate, an integer type for all lengths and positions; one of
// OWL_POOL and OWL_AVERAGE_BACK and those of a maximum's gradient, OWL_PLACES and OWL_MAX_BACK or, if no windows
// overlap, OWL_MAX_BACK_APART; and for OWL_POOL kMaximum.
//
// Slots: 2 the number of results, 3 and 4 the image's width and height, 5 and 6 the pooled image's, 7 and 8 the
// window's, 9 and 10 the strides, 11 and 12 the padding, x before y each time; 13 further memory.

struct Axis {
  Coordinate length, out, window, stride, pad;
};
OWL_DEVICE Coordinate length(const Arguments& args, int k) { return static_cast<Coordinate>(integer(args, k)); }
OWL_DEVICE Axis axis_of(const Arguments& args, int which) {
  const auto at = [&](int k) { return length(args, 3 + 2 * k + which); };
  return {at(0), at(1), at(2), at(3), at(4)};
}

// An average's divisor; for large windows around a small image it may exceed any position.
OWL_DEVICE int64_t area(Coordinate a, Coordinate b) { return int64_t{a} * b; }

// The part of a window along one axis that lies inside the image, and its length inside the padded image.
struct Span {
  Coordinate begin, end, padded;
};
OWL_DEVICE Span window(const Axis& a, Coordinate o) {
  const Coordinate begin = o * a.stride - a.pad, limit = a.length + a.pad;
  const Coordinate padded_end = begin + a.window < limit ? begin + a.window : limit;
  return {begin < 0 ? 0 : begin, padded_end < a.length ? padded_end : a.length, padded_end - begin};
}

// The windows along one axis that cover a position: [first, last].
struct Covering {
  Coordinate first, last;
};
OWL_DEVICE Covering covering(const Axis& a, Coordinate place) {
  const Coordinate at = place + a.pad, last = at / a.stride;
  return {at < a.window ? 0 : (at - a.window) / a.stride + 1, last < a.out ? last : a.out - 1};
}

// An element's position in its image, and the image's offset.
struct Place {
  Coordinate x, y, plane;
};
OWL_DEVICE Place place_of(Coordinate i, Coordinate width, Coordinate height) {
  const Coordinate row = i / width, plane = row / height;
  return {i - row * width, row - plane * height, plane};
}

// Whether b replaces the maximum a: larger, or the first NaN.
OWL_DEVICE bool replaces(T b, T a) { return (b > a) | ((b != b) & (a == a)); }

// The position of a window's maximum in its image.
OWL_DEVICE Coordinate place_of_maximum(const T* x, const Span& v, const Span& h, Coordinate width) {
  Coordinate place = v.begin * width + h.begin;
  T best = x[place];
  for (Coordinate iy = v.begin; iy < v.end; ++iy)
    for (Coordinate at = iy * width + h.begin; at < iy * width + h.end; ++at) {
      const bool better = replaces(x[at], best);
      place = better ? at : place;
      best = better ? x[at] : best;
    }
  return place;
}

#ifdef OWL_POOL

// Averages are summed in double, because windows may have millions of elements.
using Total = Choose<kMaximum, T, double>::type;
OWL_DEVICE Total join(Total a, T b) {
  if constexpr (kMaximum) return replaces(b, a) ? b : a;
  else return a + b;
}
OWL_DEVICE Total join_columns(Total a, Total b) {
  if constexpr (kMaximum) return join(a, b);
  else return a + b;
}
OWL_DEVICE T finish(Total total, int64_t n) {
  if constexpr (kMaximum) return total;
  else return static_cast<T>(total / static_cast<double>(n));
}

// A thread makes one result.
OWL_KERNEL(owl_pool) {
  const Axis across = axis_of(args, 0), down = axis_of(args, 1);
  OWL_THREADS(t) {
    const Coordinate i = Coordinate(block) * kBlock + t;
    if (i < length(args, 2)) {
      const Place o = place_of(i, across.out, down.out);
      const Span h = window(across, o.x), v = window(down, o.y);
      const T* const x = pointer<const T>(args, 0) + o.plane * down.length * across.length;
      Total total = 0;
      for (Coordinate ix = h.begin; ix < h.end; ++ix) {
        const T* const at = x + ix;
        Total column = at[v.begin * across.length];
        for (Coordinate iy = v.begin + 1; iy < v.end; ++iy) column = join(column, at[iy * across.length]);
        total = ix == h.begin ? column : join_columns(total, column);
      }
      store(args, static_cast<Index>(i), finish(total, area(v.padded, h.padded)));
    }
  }
}

#endif

#ifdef OWL_PLACES

// Writes the position of every window's maximum to slot 13; x is slot 14. A thread does one window.
OWL_KERNEL(owl_pool_places) {
  const Axis across = axis_of(args, 0), down = axis_of(args, 1);
  OWL_THREADS(t) {
    const Coordinate i = Coordinate(block) * kBlock + t;
    if (i < length(args, 2)) {
      const Place o = place_of(i, across.out, down.out);
      const T* const x = pointer<const T>(args, 14) + o.plane * down.length * across.length;
      pointer<Coordinate>(args, 13)[i] = place_of_maximum(x, window(down, o.y), window(across, o.x), across.length);
    }
  }
}

#endif

#ifdef OWL_MAX_BACK

// Sums the errors of the windows whose maximum an element is. A thread makes one result.
OWL_KERNEL(owl_pool_max_back) {
  const Axis across = axis_of(args, 0), down = axis_of(args, 1);
  OWL_THREADS(t) {
    const Coordinate i = Coordinate(block) * kBlock + t;
    if (i < length(args, 2)) {
      const Place p = place_of(i, across.length, down.length);
      const Covering h = covering(across, p.x), v = covering(down, p.y);
      const Coordinate here = p.y * across.length + p.x;
      T total = 0;
      for (Coordinate oy = v.first; oy <= v.last; ++oy) {
        const Coordinate row = (p.plane * down.out + oy) * across.out;
        for (Coordinate ox = h.first; ox <= h.last; ++ox)
          if (pointer<const Coordinate>(args, 13)[row + ox] == here) total += pointer<const T>(args, 0)[row + ox];
      }
      store(args, static_cast<Index>(i), total);
    }
  }
}

#endif

#ifdef OWL_MAX_BACK_APART

// The same if an element is in at most one small window, whose maximum is searched again.
OWL_KERNEL(owl_pool_max_back_apart) {
  const Axis across = axis_of(args, 0), down = axis_of(args, 1);
  OWL_THREADS(t) {
    const Coordinate i = Coordinate(block) * kBlock + t;
    if (i < length(args, 2)) {
      const Place p = place_of(i, across.length, down.length);
      const Covering h = covering(across, p.x), v = covering(down, p.y);
      T err = 0;
      if (h.first <= h.last && v.first <= v.last) {
        const T* const x = pointer<const T>(args, 13) + p.plane * down.length * across.length;
        const Coordinate place = place_of_maximum(x, window(down, v.first), window(across, h.first), across.length);
        if (place == p.y * across.length + p.x)
          err = pointer<const T>(args, 0)[(p.plane * down.out + v.first) * across.out + h.first];
      }
      store(args, static_cast<Index>(i), err);
    }
  }
}

#endif

#ifdef OWL_AVERAGE_BACK

// Sums an element's shares of its windows' errors. A thread makes one result.
OWL_KERNEL(owl_pool_average_back) {
  const Axis across = axis_of(args, 0), down = axis_of(args, 1);
  OWL_THREADS(t) {
    const Coordinate i = Coordinate(block) * kBlock + t;
    if (i < length(args, 2)) {
      const Place p = place_of(i, across.length, down.length);
      const Covering h = covering(across, p.x), v = covering(down, p.y);
      double total = 0;
      for (Coordinate oy = v.first; oy <= v.last; ++oy) {
        const T* const err = pointer<const T>(args, 0) + (p.plane * down.out + oy) * across.out;
        const Coordinate padded = window(down, oy).padded;
        double row = 0;
        for (Coordinate ox = h.first; ox <= h.last; ++ox)
          row += err[ox] / static_cast<T>(area(padded, window(across, ox).padded));
        total += row;
      }
      store(args, static_cast<Index>(i), static_cast<T>(total));
    }
  }
}

#endif
