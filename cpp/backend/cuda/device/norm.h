// Normalisation of rows of `length` elements, and its gradients. kLanes adjacent threads process a row; element j
// belongs to lane j % kLanes. Means and sums are added in double.
//
// Defined in front: T and R, the elements' type; kLanes, a power of 2; one of OWL_NORM, OWL_NORM_BACK,
// OWL_NORM_BACK_WEIGHT and OWL_NORM_JOIN.

constexpr int kAcross = kBlock / kLanes;  // rows of a block

OWL_DEVICE Index length_of(const Arguments& args) { return static_cast<Index>(integer(args, 2)); }

// A thread's elements: first + k * kLanes for k < count.
struct Share {
  Index row, first, count;
};
OWL_DEVICE Share share_of(const Arguments& args, Index block, int t) {
  const Index length = length_of(args), row = block * kAcross + t / kLanes, lane = t % kLanes;
  const Index count = row < integer(args, 3) && lane < length ? (length - lane + kLanes - 1) / kLanes : 0;
  return {row, row * length + lane, count};
}

OWL_DEVICE int first_lane_of(int t) { return t - t % kLanes; }

// Joins the parts of a row's lanes in part[t]: afterwards its first lane has the total.
OWL_DEVICE void join_lanes(double* part) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    OWL_SYNC;
    OWL_THREADS(t) {
      if (t % kLanes < width) part[t] += part[t + width];
    }
  }
  OWL_SYNC;
}

OWL_DEVICE double root_of(double squares, double length, double eps) {
  return 1.0 / __builtin_sqrt(squares / length + eps);
}

#ifdef OWL_NORM

// Slots: 2 length, 3 the number of rows, 4 eps, 5 weight, 6 bias.
OWL_KERNEL(owl_layer_norm) {
  OWL_SHARED double sum[kBlock];
  OWL_SHARED double squares[kBlock];
  const double length = static_cast<double>(integer(args, 2)), eps = number(args, 4);
  const T* const weight = pointer<const T>(args, 5);
  const T* const bias = pointer<const T>(args, 6);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    double total = 0;
    for (Index k = 0; k < share.count; ++k) total += static_cast<double>(load(args, share.first + k * kLanes));
    sum[t] = total;
  }
  join_lanes(sum);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const double mean = sum[first_lane_of(t)] / length;
    double total = 0;
    for (Index k = 0; k < share.count; ++k) {
      const double d = static_cast<double>(load(args, share.first + k * kLanes)) - mean;
      total += d * d;
    }
    squares[t] = total;
  }
  join_lanes(squares);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const double mean = sum[first_lane_of(t)] / length;
    const T root = static_cast<T>(root_of(squares[first_lane_of(t)], length, eps));
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * kLanes, at = t % kLanes + k * kLanes;
      const T d = static_cast<T>(static_cast<double>(load(args, i)) - mean);
      store(args, i, d * root * weight[at] + bias[at]);
    }
  }
}

#endif

#ifdef OWL_NORM_BACK

// The gradient of x, if slot 7 is not null, and each row's mean and root, in this order. Slots: 2 length, 3 the number
// of rows, 4 eps, 5 x, 6 weight, 7 the gradient, 8 means and roots.
OWL_KERNEL(owl_norm_back) {
  OWL_SHARED double sum[kBlock];
  OWL_SHARED double squares[kBlock];
  OWL_SHARED double mean_of_g[kBlock];
  OWL_SHARED double slope[kBlock];
  const double length = static_cast<double>(integer(args, 2)), eps = number(args, 4);
  const T* const err = pointer<const T>(args, 0);
  const T* const x = pointer<const T>(args, 5);
  const T* const weight = pointer<const T>(args, 6);
  T* const dx = pointer<T>(args, 7);
  double* const stats = pointer<double>(args, 8);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    double total = 0;
    for (Index k = 0; k < share.count; ++k) total += static_cast<double>(x[share.first + k * kLanes]);
    sum[t] = total;
  }
  join_lanes(sum);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const double mean = sum[first_lane_of(t)] / length;
    double total = 0;
    for (Index k = 0; k < share.count; ++k) {
      const double d = static_cast<double>(x[share.first + k * kLanes]) - mean;
      total += d * d;
    }
    squares[t] = total;
  }
  join_lanes(squares);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const double mean = sum[first_lane_of(t)] / length, root = root_of(squares[first_lane_of(t)], length, eps);
    double g_total = 0, total = 0;
    if (dx) {
      for (Index k = 0; k < share.count; ++k) {
        const Index i = share.first + k * kLanes;
        const double g = static_cast<double>(err[i]) * static_cast<double>(weight[t % kLanes + k * kLanes]);
        g_total += g;
        total += g * ((static_cast<double>(x[i]) - mean) * root);
      }
    }
    mean_of_g[t] = g_total;
    slope[t] = total;
    if (t % kLanes == 0 && share.count > 0) {
      stats[2 * share.row] = mean;
      stats[2 * share.row + 1] = root;
    }
  }
  join_lanes(mean_of_g);
  join_lanes(slope);
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    const int lane = first_lane_of(t);
    const double mean = sum[lane] / length;
    const T root = static_cast<T>(root_of(squares[lane], length, eps));
    const T g_mean = static_cast<T>(mean_of_g[lane] / length), along = static_cast<T>(slope[lane] / length);
    if (dx) {
      for (Index k = 0; k < share.count; ++k) {
        const Index i = share.first + k * kLanes;
        const T normed = static_cast<T>(static_cast<double>(x[i]) - mean) * root;
        dx[i] = root * ((err[i] * weight[t % kLanes + k * kLanes] - g_mean) - normed * along);
      }
    }
  }
}

#endif

#ifdef OWL_NORM_BACK_WEIGHT

// The gradients of weight and bias over a part of the rows. Slots: 2 length, 3 the number of rows, 4 x, 5 means and
// roots, 6 the results [part][weight, bias][element], 7 rows of a part, 8 adjacent blocks.
constexpr int kColumns = 32, kThreads = kBlock / kColumns;  // threads of a column

OWL_KERNEL(owl_norm_back_weight) {
  OWL_SHARED double to_weight[kBlock];
  OWL_SHARED double to_bias[kBlock];
  const Index length = length_of(args), rows = static_cast<Index>(integer(args, 3));
  const T* const err = pointer<const T>(args, 0);
  const T* const x = pointer<const T>(args, 4);
  const double* const stats = pointer<const double>(args, 5);
  const Index beside = static_cast<Index>(integer(args, 8)), part = block / beside;
  const Index begin = part * static_cast<Index>(integer(args, 7));
  const Index end = rows - begin < integer(args, 7) ? rows : begin + static_cast<Index>(integer(args, 7));
  OWL_THREADS(t) {
    const Index at = block % beside * kColumns + t % kColumns;
    double w = 0, b = 0;
    if (at < length) {
      for (Index row = begin + t / kColumns; row < end; row += kThreads) {
        const Index i = row * length + at;
        const double e = static_cast<double>(err[i]);
        w += e * ((static_cast<double>(x[i]) - stats[2 * row]) * stats[2 * row + 1]);
        b += e;
      }
    }
    to_weight[t] = w;
    to_bias[t] = b;
  }
  OWL_SYNC;
  OWL_THREADS(t) {
    const Index at = block % beside * kColumns + t % kColumns;
    if (t < kColumns && at < length) {
      double w = 0, b = 0;
      for (int k = 0; k < kThreads; ++k) {
        w += to_weight[t + k * kColumns];
        b += to_bias[t + k * kColumns];
      }
      double* const results = pointer<double>(args, 6) + 2 * part * length;
      results[at] = w;
      results[length + at] = b;
    }
  }
}

#endif

#ifdef OWL_NORM_JOIN

// Slots: 2 length, 3 the number of parts, 4 their results, 5 and 6 the gradients of weight and bias, or null.
OWL_KERNEL(owl_norm_join) {
  const Index length = length_of(args), parts = static_cast<Index>(integer(args, 3));
  const double* const partial = pointer<const double>(args, 4);
  OWL_THREADS(t) {
    const Index at = block * kBlock + t;
    if (at < length) {
      double w = 0, b = 0;
      for (Index p = 0; p < parts; ++p) {
        w += partial[2 * p * length + at];
        b += partial[(2 * p + 1) * length + at];
      }
      if (pointer<T>(args, 5)) pointer<T>(args, 5)[at] = static_cast<T>(w);
      if (pointer<T>(args, 6)) pointer<T>(args, 6)[at] = static_cast<T>(b);
    }
  }
}

#endif
