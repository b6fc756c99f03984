// Local response normalisation across channels, y = x * s^-beta with s = 1 + alpha * (sum of x^2 over the window), and
// its gradient, with the CPU's formulas and order of sums (backend/cpu/isa/lrn_kernels.cpp). A thread makes one
// element.
//
// Defined in front: T and R, the elements' type; kBeta, in quarters if square roots suffice, else 0; and one
// of OWL_LRN and those of the gradient, OWL_RATIOS and OWL_LRN_BACK.
//
// Slots: 2 the number of elements, 3 of a plane, 4 of channels, 5 of channels on either side of a window, 6 alpha, 7
// beta; for the gradient 8 x, 9 y, 10 s^-beta, 11 err * y / s.

OWL_DEVICE Index length(const Arguments& args, int k) { return static_cast<Index>(integer(args, k)); }

// Element i and its neighbours in the window: the number of those in earlier channels, and in all.
struct Window {
  Index first, count;
};
OWL_DEVICE Window window_of(const Arguments& args, Index i) {
  const Index plane = length(args, 3), channels = length(args, 4), half = length(args, 5);
  const Index channel = i / plane % channels;
  const Index before = channel < half ? channel : half, after = channels - 1 - channel;
  return {i - before * plane, before + 1 + (after < half ? after : half)};
}

// In double, because windows may have thousands of channels.
OWL_DEVICE T window_sum(const Arguments& args, const T* x, Index i) {
  const Window w = window_of(args, i);
  double s = 0;
  for (Index k = 0; k < w.count; ++k) {
    const T v = x[w.first + k * length(args, 3)];
    s += v * v;
  }
  return T(1) + static_cast<T>(number(args, 6)) * static_cast<T>(s);
}

// s^-beta
OWL_DEVICE T inverse_power(const Arguments& args, T s) {
  using namespace owl;
  if constexpr (kBeta == 3) {
    const T root = math::sqrt(s);
    return T(1) / (root * math::sqrt(root));
  } else if constexpr (kBeta == 2) {
    return T(1) / math::sqrt(s);
  } else if constexpr (kBeta == 4) {
    return T(1) / s;
  } else {
    return math::pow(s, -static_cast<T>(number(args, 7)));
  }
}

#ifdef OWL_LRN

OWL_KERNEL(owl_lrn) {
  const T* const x = pointer<const T>(args, 0);
  OWL_THREADS(t) {
    const Index i = block * kBlock + t;
    if (i < length(args, 2)) store(args, i, x[i] * inverse_power(args, window_sum(args, x, i)));
  }
}

#endif

#ifdef OWL_RATIOS

OWL_KERNEL(owl_lrn_ratios) {
  OWL_THREADS(t) {
    const Index i = block * kBlock + t;
    if (i < length(args, 2)) {
      const T s = window_sum(args, pointer<const T>(args, 8), i);
      pointer<T>(args, 10)[i] = inverse_power(args, s);
      pointer<T>(args, 11)[i] = pointer<const T>(args, 0)[i] * pointer<const T>(args, 9)[i] / s;
    }
  }
}

#endif

#ifdef OWL_LRN_BACK

// dx = err * s^-beta - 2 * alpha * beta * x * (sum of err * y / s over the window)
OWL_KERNEL(owl_lrn_back) {
  const T factor = T(2) * static_cast<T>(number(args, 6)) * static_cast<T>(number(args, 7));
  OWL_THREADS(t) {
    const Index i = block * kBlock + t;
    if (i < length(args, 2)) {
      const Window w = window_of(args, i);
      double sum = 0;
      for (Index k = 0; k < w.count; ++k) sum += pointer<const T>(args, 11)[w.first + k * length(args, 3)];
      const T err = pointer<const T>(args, 0)[i], x = pointer<const T>(args, 8)[i];
      store(args, i, err * pointer<const T>(args, 10)[i] - factor * x * static_cast<T>(sum));
    }
  }
}

#endif
