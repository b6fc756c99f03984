// Reductions: every result folds elements of operand 0. backend/cuda/reduce.cpp cuts them.
//
// Defined in front: T and R, the operand's and the result's type; OWL_FOLD, one of the folds below; kKept and kReduced,
// the number of axes to iterate over besides the first; one of OWL_ROWS, OWL_COLUMNS, OWL_JOIN and OWL_NOTHING;
// and OWL_CUT if a fold is cut into parts, whose results OWL_JOIN joins.

using owl::elementwise_ops::same;

constexpr bool kFloating = same<T, float> || same<T, double>;

// A fold: start() is the value without elements, take() folds the element at a position along the reduced axes, join()
// joins another partial fold.

template <class A> struct Adding {
  using Acc = A;
  OWL_DEVICE Acc start() { return 0; }
  OWL_DEVICE Acc take(Acc a, T x, Index) { return a + static_cast<Acc>(x); }
  OWL_DEVICE Acc join(Acc a, Acc b) { return a + b; }
};
// As on the CPU, float32 is added in double. Integers wrap around.
using Wide = Choose<kFloating, double, Choose<sizeof(T) == 8, uint64_t, uint32_t>::type>::type;
struct Sum : Adding<Wide> {
  OWL_DEVICE R result(Acc a, double) { return static_cast<R>(a); }
};
struct Prod {
  using Acc = Wide;
  OWL_DEVICE Acc start() { return 1; }
  OWL_DEVICE Acc take(Acc a, T x, Index) { return a * static_cast<Acc>(x); }
  OWL_DEVICE Acc join(Acc a, Acc b) { return a * b; }
  OWL_DEVICE R result(Acc a, double) { return static_cast<R>(a); }
};
struct Mean : Adding<double> {
  OWL_DEVICE R result(Acc a, double count) { return static_cast<R>(a / count); }
};
// Updated element by element (Welford), joined as Chan does.
struct Variance {
  struct Acc {
    double count, mean, squares;
  };
  OWL_DEVICE Acc start() { return {0, 0, 0}; }
  OWL_DEVICE Acc take(Acc a, T x, Index) {
    const double count = a.count + 1, d = static_cast<double>(x) - a.mean, mean = a.mean + d / count;
    return {count, mean, a.squares + d * (static_cast<double>(x) - mean)};
  }
  OWL_DEVICE Acc join(Acc a, Acc b) {
    const double count = a.count + b.count, d = b.mean - a.mean;
    const double apart = d * d * (a.count * b.count / count);
    const Acc both = {count, a.mean + d * (b.count / count), a.squares + b.squares + apart};
    return b.count == 0 ? a : both;
  }
  OWL_DEVICE R result(Acc a, double count) { return static_cast<R>(a.squares / count); }
};
struct CountZero : Adding<double> {  // exact to 2^53
  OWL_DEVICE Acc take(Acc a, T x, Index) { return a + (x == T(0) ? 1.0 : 0.0); }
  OWL_DEVICE R result(Acc a, double) { return static_cast<R>(a); }
};

// Propagates NaN.
template <bool largest> struct Extreme {
  using Acc = T;
  OWL_DEVICE Acc start() {
    if constexpr (kFloating) return static_cast<T>(largest ? -__builtin_inf() : __builtin_inf());
    else if constexpr (same<T, uint8_t>) return largest ? 0 : 1;
    else if constexpr (same<T, int64_t>) return largest ? INT64_MIN : INT64_MAX;
    else return largest ? INT32_MIN : INT32_MAX;
  }
  OWL_DEVICE Acc join(Acc a, Acc b) {
    if constexpr (largest) return owl::elementwise_ops::Maximum::eval<T>(a, b);
    else return owl::elementwise_ops::Minimum::eval<T>(a, b);
  }
  OWL_DEVICE Acc take(Acc a, T x, Index) { return join(a, x); }
  OWL_DEVICE R result(Acc a, double) { return static_cast<R>(a); }
};
using Max = Extreme<true>;
using Min = Extreme<false>;

// The index of the first largest (smallest) element; a NaN is larger (smaller) than any number.
template <bool largest> struct ArgExtreme {
  struct Acc {
    T value;
    int32_t place;  // negative: no element
  };
  OWL_DEVICE Acc start() { return {T(0), -1}; }
  OWL_DEVICE Acc join(Acc a, Acc b) {
    const bool equal = (a.value == b.value) | ((a.value != a.value) & (b.value != b.value));
    const bool better = (largest ? b.value > a.value : b.value < a.value) |
                        ((b.value != b.value) & (a.value == a.value)) | (equal & (b.place < a.place));
    const bool takes_b = (b.place >= 0) & (better | (a.place < 0));
    return takes_b ? b : a;
  }
  OWL_DEVICE Acc take(Acc a, T x, Index place) { return join(a, {x, static_cast<int32_t>(place)}); }
  OWL_DEVICE R result(Acc a, double) { return static_cast<R>(a.place); }
};
using ArgMax = ArgExtreme<true>;
using ArgMin = ArgExtreme<false>;

using Fold = OWL_FOLD;
using Acc = Fold::Acc;

OWL_DEVICE Index length(const Arguments& args, int k) { return static_cast<Index>(integer(args, k)); }

// The offset of element number `at` along `axes` axes, whose lengths and strides begin at `slot`.
template <int axes> OWL_DEVICE Index offset(const Arguments& args, int slot, Index at) {
  Index result = 0;
  OWL_UNROLL for (int k = 0; k + 1 < axes; ++k) {
    const Index n = length(args, slot + 2 * k), next = at / n;
    result += (at - next * n) * length(args, slot + 2 * k + 1);
    at = next;
  }
  if constexpr (axes > 0) result += at * length(args, slot + 2 * axes - 1);
  return result;
}

#ifdef OWL_ROWS

// Groups of threads, each for a row, or for a part of one: then the group is the block. Slots: 2 partial results, 3
// the number of rows, 4 the length of the first axis, 5 of a row, 6 threads of a group, 7 parts, 8 length of a part, 9
// the number of elements as a double, then the axes, kept ones first.
constexpr int kKeptSlot = 10, kReducedSlot = kKeptSlot + 2 * kKept;
constexpr int kAtOnce = 8;  // loads that a thread has in flight

// A thread's position in a row: along the first axis, and along the other reduced axes.
struct Place {
  Index i, unit;
};

OWL_KERNEL(owl_fold_rows) {
  OWL_SHARED Acc fold[kBlock];
  const Index rows = length(args, 3), inner = length(args, 4), all = length(args, 5), parts = length(args, 7);
  const int group = static_cast<int>(integer(args, 6));
  const Index part = block % parts, first = block / parts * (kBlock / group);
  const Index begin = part * length(args, 8), end = all - begin < length(args, 8) ? all : begin + length(args, 8);
  const Index unit_step = group / inner, i_step = group % inner;
  OWL_THREADS(t) {
    const Index row = first + t / group;
    Acc acc = Fold::start();
    if (row < rows) {
      const Index base = offset<kKept>(args, kKeptSlot, row);
      Index e = begin + t % group;
      Place place{e, 0};
      if constexpr (kReduced > 0) place = {e % inner, e / inner};
      const auto next = [&]() -> Index {
        const Index at = base + offset<kReduced>(args, kReducedSlot, place.unit) + place.i;
        if constexpr (kReduced > 0) {
          place.i += i_step;
          place.unit += unit_step + (place.i >= inner);
          place.i -= place.i >= inner ? inner : 0;
        } else {
          place.i += group;
        }
        return at;
      };
      for (; end - e > (kAtOnce - 1) * group; e += kAtOnce * group) {
        T x[kAtOnce];
        OWL_UNROLL for (int k = 0; k < kAtOnce; ++k) x[k] = load(args, next());
        OWL_UNROLL for (int k = 0; k < kAtOnce; ++k) acc = Fold::take(acc, x[k], e + k * group);
      }
      for (; e < end; e += group) acc = Fold::take(acc, load(args, next()), e);
    }
    fold[t] = acc;
  }
  for (int width = group / 2; width > 0; width /= 2) {
    OWL_SYNC;
    OWL_THREADS(t) {
      if (t % group < width) fold[t] = Fold::join(fold[t], fold[t + width]);
    }
  }
  OWL_THREADS(t) {
    const Index row = first + t / group;
    if (t % group == 0 && row < rows) {
#ifdef OWL_CUT
      pointer<Acc>(args, 2)[part * rows + row] = fold[t];
#else
      store(args, row, Fold::result(fold[t], number(args, 9)));
#endif
    }
  }
}

#endif

#if defined OWL_COLUMNS || defined OWL_JOIN

// Joins the shares of each column in fold[t], `lanes` threads for each of `across` columns: afterwards thread t <
// across has the total.
OWL_DEVICE void join_lanes(Acc* fold, int across, int lanes) {
  for (int n = lanes; n > 1; n = (n + 1) / 2) {
    OWL_SYNC;
    OWL_THREADS(t) {
      const int other = t / across + (n + 1) / 2;
      if (other < n) fold[t] = Fold::join(fold[t], fold[other * across + t % across]);
    }
  }
}

#endif

#ifdef OWL_COLUMNS

// Blocks of `across` columns, several threads for each, or for each part. Slots: 2 partial results, 3 the number of
// columns, 4 the length of the first axis, 5 of a column, 6 columns of a block, 7 threads of a column, 8 adjacent
// blocks, 9 length of a part, 10 the number of elements as a double, then the axes, kept ones first.
constexpr int kKeptSlot = 11, kReducedSlot = kKeptSlot + 2 * kKept;
constexpr int kAtOnce = 4;

OWL_KERNEL(owl_fold_columns) {
  OWL_SHARED Acc fold[kBlock];
  const Index columns = length(args, 3), inner = length(args, 4), all = length(args, 5), beside = length(args, 8);
  const int across = static_cast<int>(integer(args, 6)), lanes = static_cast<int>(integer(args, 7));
  const Index part = block / beside, first = block % beside * across;
  const Index begin = part * length(args, 9), end = all - begin < length(args, 9) ? all : begin + length(args, 9);
  OWL_THREADS(t) {
    const Index column = first + t % across;
    Acc acc = Fold::start();
    if (t < across * lanes && column < columns) {
      const Index row = kKept > 0 ? column / inner : 0;
      const Index base = offset<kKept>(args, kKeptSlot, row) + (column - row * inner);
      const auto at = [&](Index u) -> Index { return base + offset<kReduced>(args, kReducedSlot, u); };
      Index u = begin + t / across;
      for (; end - u > (kAtOnce - 1) * lanes; u += kAtOnce * lanes) {
        T x[kAtOnce];
        OWL_UNROLL for (int k = 0; k < kAtOnce; ++k) x[k] = load(args, at(u + k * lanes));
        OWL_UNROLL for (int k = 0; k < kAtOnce; ++k) acc = Fold::take(acc, x[k], u + k * lanes);
      }
      for (; u < end; u += lanes) acc = Fold::take(acc, load(args, at(u)), u);
    }
    fold[t] = acc;
  }
  join_lanes(fold, across, lanes);
  OWL_THREADS(t) {
    const Index column = first + t % across;
    if (t < across && column < columns) {
#ifdef OWL_CUT
      pointer<Acc>(args, 2)[part * columns + column] = fold[t];
#else
      store(args, column, Fold::result(fold[t], number(args, 10)));
#endif
    }
  }
}

#endif

#ifdef OWL_JOIN

// Joins the parts of every result. Slots: 2 partial results [results, parts], 3 the number of results, 4 of parts,
// 5 results of a block, 6 threads of a result, 7 the number of elements as a double.
OWL_KERNEL(owl_join_parts) {
  OWL_SHARED Acc fold[kBlock];
  const Acc* const partial = pointer<const Acc>(args, 2);
  const Index results = length(args, 3), parts = length(args, 4);
  const int across = static_cast<int>(integer(args, 5)), lanes = static_cast<int>(integer(args, 6));
  OWL_THREADS(t) {
    const Index result = block * across + t % across;
    Acc acc = Fold::start();
    if (t < across * lanes && result < results) {
      OWL_UNROLL for (Index p = t / across; p < parts; p += lanes) acc = Fold::join(acc, partial[p * results + result]);
    }
    fold[t] = acc;
  }
  join_lanes(fold, across, lanes);
  OWL_THREADS(t) {
    const Index result = block * across + t % across;
    if (t < across && result < results) store(args, result, Fold::result(fold[t], number(args, 7)));
  }
}

#endif

#ifdef OWL_NOTHING

// Results without elements. Slots: 2 the number of results, 3 of elements as a double.
OWL_KERNEL(owl_fold_nothing) {
  OWL_THREADS(t) {
    const Index i = block * kBlock + t;
    if (i < length(args, 2)) store(args, i, Fold::result(Fold::start(), number(args, 3)));
  }
}

#endif
