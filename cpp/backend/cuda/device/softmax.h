// Softmax, its logarithm and their gradients. The array is [inner, length, outer]: inner * outer distributions of `length`
// elements, `inner` apart. kLanes threads process a distribution; element j belongs to lane j % kLanes.
//
// Defined in front: T and R, the elements' type; kLanes, a power of 2; kRows, whether inner is 1: then the lanes of a
// distribution are adjacent threads, else the distributions are; and one of OWL_SOFTMAX, with kLogarithm,
// OWL_SOFTMAX_BACK and OWL_LOG_SOFTMAX_BACK.
//
// Slots: 2 inner, 3 length, 4 the number of distributions; 5 for the gradients: the softmax, or x.

constexpr int kAcross = kBlock / kLanes;  // distributions of a block

OWL_DEVICE int lane_of(int t) { return kRows ? t % kLanes : t / kAcross; }
OWL_DEVICE int first_lane_of(int t) { return kRows ? t - t % kLanes : t % kAcross; }

// A thread's elements: first + k * step for k < count.
struct Share {
  Index first, step, count;
};
OWL_DEVICE Share share_of(const Arguments& args, Index block, int t) {
  const Index inner = kRows ? 1 : static_cast<Index>(integer(args, 2)), length = static_cast<Index>(integer(args, 3));
  const Index at = block * kAcross + (kRows ? t / kLanes : t % kAcross), lane = lane_of(t);
  const Index count = at < integer(args, 4) && lane < length ? (length - lane + kLanes - 1) / kLanes : 0;
  const Index begin = kRows ? at * length : at % inner + at / inner * inner * length;
  return {begin + lane * inner, kLanes * inner, count};
}

// Joins the parts of a distribution's lanes in part[t]: afterwards its first lane has the total.
template <class Part, class Join> OWL_DEVICE void join_lanes(Part* part, Join join) {
  constexpr int kNext = kRows ? 1 : kAcross;
  for (int width = kLanes / 2; width > 0; width /= 2) {
    OWL_SYNC;
    OWL_THREADS(t) {
      if (lane_of(t) < width) part[t] = join(part[t], part[t + width * kNext]);
    }
  }
  OWL_SYNC;
}

#ifdef OWL_SOFTMAX

OWL_KERNEL(owl_softmax) {
  using namespace owl;
  OWL_SHARED T top[kBlock];
  OWL_SHARED double total[kBlock];  // in double, because distributions may have millions of elements
  // May ignore a NaN: subtracting the maximum from it and summing propagates it to the whole distribution.
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    T most = static_cast<T>(-__builtin_inf());
    for (Index k = 0; k < share.count; ++k) {
      const T x = load(args, share.first + k * share.step);
      most = x > most ? x : most;
    }
    top[t] = most;
  }
  join_lanes(top, [](T a, T b) { return b > a ? b : a; });
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const T most = top[first_lane_of(t)];
    double sum = 0;
    for (Index k = 0; k < share.count; ++k)
      sum += math::exp_not_positive(load(args, share.first + k * share.step) - most);
    total[t] = sum;
  }
  join_lanes(total, [](double a, double b) { return a + b; });
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const T most = top[first_lane_of(t)], sum = static_cast<T>(total[first_lane_of(t)]);
    const T shift = kLogarithm ? math::ln(sum) : T(0);
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * share.step;
      const T x = load(args, i) - most;
      store(args, i, kLogarithm ? x - shift : math::exp_not_positive(x) / sum);
    }
  }
}

#endif

#ifdef OWL_SOFTMAX_BACK

// y * (err - sum of err * y)
OWL_KERNEL(owl_softmax_back) {
  OWL_SHARED double dot[kBlock];
  const T* const y = pointer<const T>(args, 5);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    double sum = 0;
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * share.step;
      sum += load(args, i) * y[i];
    }
    dot[t] = sum;
  }
  join_lanes(dot, [](double a, double b) { return a + b; });
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const T mean = static_cast<T>(dot[first_lane_of(t)]);
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * share.step;
      store(args, i, y[i] * (load(args, i) - mean));
    }
  }
}

#endif

#ifdef OWL_LOG_SOFTMAX_BACK

// err - softmax(x) * sum of err
OWL_KERNEL(owl_log_softmax_back) {
  using namespace owl;
  OWL_SHARED T top[kBlock];
  OWL_SHARED double total[kBlock];
  OWL_SHARED double errors[kBlock];
  const T* const x = pointer<const T>(args, 5);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    T most = static_cast<T>(-__builtin_inf());
    double sum = 0;
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * share.step;
      most = x[i] > most ? x[i] : most;
      sum += load(args, i);
    }
    top[t] = most;
    errors[t] = sum;
  }
  join_lanes(top, [](T a, T b) { return b > a ? b : a; });
  join_lanes(errors, [](double a, double b) { return a + b; });
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const T most = top[first_lane_of(t)];
    double sum = 0;
    for (Index k = 0; k < share.count; ++k) sum += math::exp_not_positive(x[share.first + k * share.step] - most);
    total[t] = sum;
  }
  join_lanes(total, [](double a, double b) { return a + b; });
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const T most = top[first_lane_of(t)], sum = static_cast<T>(total[first_lane_of(t)]);
    const T err = static_cast<T>(errors[first_lane_of(t)]);
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * share.step;
      store(args, i, load(args, i) - math::exp_not_positive(x[i] - most) / sum * err);
    }
  }
}

#endif
