// The inner loops of reductions. Sums and products of float32 run in double, whose rounding error is negligible, so that
// any fixed order will do. Rows are folded in 32 interleaved lanes that are joined pairwise.
#include <type_traits>

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu::OWL_ISA {
namespace {

using Bool = std::uint8_t;

template <class T> struct SumOf { using type = std::uint32_t; };  // wraps around
template <> struct SumOf<std::int64_t> { using type = std::uint64_t; };
template <> struct SumOf<float> { using type = double; };
template <> struct SumOf<double> { using type = double; };

// The fold of Sum and Mean, which differ only in the final step.
template <class T, class A> struct Adding {
  using Element = T;
  using Acc = A;
  static constexpr Acc start = 0;
  [[gnu::always_inline]] static Acc take(Acc a, T x) { return a + static_cast<Acc>(x); }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return a + b; }
};

template <class T> struct Sum {
  using Taking = Adding<T, typename SumOf<T>::type>;
  using Out = std::conditional_t<std::is_same_v<T, Bool>, std::int32_t, T>;
  static Out result(typename Taking::Acc a, double) { return static_cast<Out>(a); }
};

template <class T> struct Mean {
  using Taking = Adding<T, double>;
  using Out = std::conditional_t<std::is_same_v<T, double>, double, float>;
  static Out result(double a, double count) { return static_cast<Out>(a / count); }
};

template <class T> struct Prod {
  using Taking = Prod;
  using Element = T;
  using Acc = typename SumOf<T>::type;
  using Out = typename Sum<T>::Out;
  static constexpr Acc start = 1;
  [[gnu::always_inline]] static Acc take(Acc a, T x) { return a * static_cast<Acc>(x); }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return a * b; }
  static Out result(Acc a, double) { return static_cast<Out>(a); }
};

template <class T> constexpr T lowest() {
  if constexpr (std::is_same_v<T, Bool>) return 0;
  else if constexpr (std::is_same_v<T, std::int32_t>) return INT32_MIN;
  else if constexpr (std::is_same_v<T, std::int64_t>) return INT64_MIN;
  else return -static_cast<T>(__builtin_inf());
}
template <class T> constexpr T highest() {
  if constexpr (std::is_same_v<T, Bool>) return 1;
  else if constexpr (std::is_same_v<T, std::int32_t>) return INT32_MAX;
  else if constexpr (std::is_same_v<T, std::int64_t>) return INT64_MAX;
  else return static_cast<T>(__builtin_inf());
}

// Propagates NaN.
template <class T> struct Max {
  using Taking = Max;
  using Element = T;
  using Acc = T;
  using Out = T;
  static constexpr Acc start = lowest<T>();
  [[gnu::always_inline]] static Acc take(Acc a, T x) {
    const T m = a >= x ? a : x;  // x if it is a NaN
    return a != a ? a : m;
  }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return take(a, b); }
  static Out result(Acc a, double) { return a; }
};
template <class T> struct Min {
  using Taking = Min;
  using Element = T;
  using Acc = T;
  using Out = T;
  static constexpr Acc start = highest<T>();
  [[gnu::always_inline]] static Acc take(Acc a, T x) {
    const T m = a <= x ? a : x;  // x if it is a NaN
    return a != a ? a : m;
  }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return take(a, b); }
  static Out result(Acc a, double) { return a; }
};

template <class T> struct CountZero {
  using Taking = CountZero;
  using Element = T;
  using Acc = double;  // exact to 2^53
  using Out = double;
  static constexpr Acc start = 0;
  [[gnu::always_inline]] static Acc take(Acc a, T x) { return a + (x == T(0) ? 1.0 : 0.0); }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return a + b; }
  static Out result(Acc a, double) { return a; }
};

// The loops of the fold F.
template <class F> struct Loops {
  using T = typename F::Element;
  using Acc = typename F::Acc;
  static constexpr std::int64_t kLanes = 32;

  static void init(void* acc, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) static_cast<Acc*>(acc)[i] = F::start;
  }

  // Folds complete groups of kRows * kLanes elements from x[i] on, in order, and returns the index after them. Not
  // inlined: that would double GCC's time for this file and not make it faster.
  template <int kRows>
  [[gnu::noinline]] static std::int64_t fold_lanes(Acc* __restrict lane, const T* __restrict x, std::int64_t i,
                                                   std::int64_t n) {
    for (; i + kRows * kLanes <= n; i += kRows * kLanes)
      for (std::int64_t j = 0; j < kLanes; ++j) {
        Acc a = lane[j];
        for (int r = 0; r < kRows; ++r) a = F::take(a, x[i + j + r * kLanes]);
        lane[j] = a;
      }
    return i;
  }

  static void row(void* acc, const void* data, std::int64_t n) {
    const T* x = static_cast<const T*>(data);
    Acc total = F::start;
    std::int64_t i = 0;
    if (n >= kLanes) {
      alignas(64) Acc lane[kLanes];
      for (int j = 0; j < kLanes; ++j) lane[j] = F::start;
      i = fold_lanes<8>(lane, x, i, n);
      i = fold_lanes<1>(lane, x, i, n);
      for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
        for (std::int64_t j = 0; j < width; ++j) lane[j] = F::join(lane[j], lane[j + width]);
      total = lane[0];
    }
    for (; i < n; ++i) total = F::take(total, x[i]);
    *static_cast<Acc*>(acc) = F::join(*static_cast<Acc*>(acc), total);
  }

  static void columns(void* acc, const void* data, std::int64_t stride, std::int64_t rows, std::int64_t n) {
    const T* x = static_cast<const T*>(data);
    Acc* to = static_cast<Acc*>(acc);
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * stride) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i)
        to[i] = F::take(F::take(F::take(F::take(to[i], x[i]), x[i + stride]), x[i + 2 * stride]), x[i + 3 * stride]);
    }
    for (; r < rows; ++r, x += stride) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) to[i] = F::take(to[i], x[i]);
    }
  }

  static void combine(void* acc, const void* other, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i)
      static_cast<Acc*>(acc)[i] = F::join(static_cast<Acc*>(acc)[i], static_cast<const Acc*>(other)[i]);
  }
};

template <class F> void finish(void* out, const void* acc, std::int64_t n, double count) {
  using Acc = typename F::Taking::Acc;
  for (std::int64_t i = 0; i < n; ++i)
    static_cast<typename F::Out*>(out)[i] = F::result(static_cast<const Acc*>(acc)[i], count);
}

template <class F> constexpr Fold fold_of() {
  using L = Loops<typename F::Taking>;
  return {sizeof(typename L::Acc), L::init, L::row, L::columns, L::combine, finish<F>};
}

template <class T, bool kLargest> struct ArgLoops {
  [[gnu::always_inline]] static bool better_than(T a, T b) {
    return (kLargest ? b > a : b < a) | ((b != b) & (a == a));
  }

  static std::int64_t row(const void* data, std::int64_t n) {
    using F = std::conditional_t<kLargest, Max<T>, Min<T>>;
    const T* x = static_cast<const T*>(data);
    T best = F::start;
    Loops<F>::row(&best, x, n);
    for (std::int64_t i = 0; i < n; ++i)
      if ((x[i] == best) | ((best != best) & (x[i] != x[i]))) return i;
    return 0;
  }

  static void columns(std::int32_t* __restrict out, const void* data, std::int64_t stride, std::int64_t rows,
                      std::int64_t n) {
    alignas(64) T best[kArgColumns];
    const T* __restrict x = static_cast<const T*>(data);
    for (std::int64_t i = 0; i < n; ++i) {
      best[i] = x[i];
      out[i] = 0;
    }
    for (std::int64_t r = 1; r < rows; ++r) {
      x += stride;
      for (std::int64_t i = 0; i < n; ++i) {
        const bool better = better_than(best[i], x[i]);
        best[i] = better ? x[i] : best[i];
        out[i] = better ? static_cast<std::int32_t>(r) : out[i];
      }
    }
  }

  static bool better(const void* a, const void* b) {
    return better_than(*static_cast<const T*>(a), *static_cast<const T*>(b));
  }

  static constexpr ArgFold fold{sizeof(T), row, columns, better};
};

// In DType's order. Narrow types have none: they are converted first.
#define OWL_FOLDS(FOLD)                                                                                               \
  {fold_of<FOLD<Bool>>(), {}, fold_of<FOLD<std::int32_t>>(), fold_of<FOLD<std::int64_t>>(), {}, {}, fold_of<FOLD<float>>(), \
   fold_of<FOLD<double>>()}
#define OWL_ARG(LARGEST)                                                                                             \
  {ArgLoops<Bool, LARGEST>::fold, {}, ArgLoops<std::int32_t, LARGEST>::fold, ArgLoops<std::int64_t, LARGEST>::fold, {}, {}, \
   ArgLoops<float, LARGEST>::fold, ArgLoops<double, LARGEST>::fold}

}  // namespace

const ReduceTable& reduce_table() {
  static constexpr ReduceTable table{
      {OWL_FOLDS(Sum), OWL_FOLDS(Mean), OWL_FOLDS(Prod), OWL_FOLDS(Max), OWL_FOLDS(Min), OWL_FOLDS(CountZero)},
      {OWL_ARG(true), OWL_ARG(false)}};
  return table;
}

}  // namespace owl::cpu::OWL_ISA
