// The inner loops of reductions. Sums and products of float32 run in double, whose rounding error is negligible, so that
// any fixed order will do. Rows are folded in 32 interleaved lanes that are joined pairwise.
#include <type_traits>

#if defined(__FMA__)
#include <immintrin.h>
#endif

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu::OWL_ISA {
namespace {

using Bool = std::uint8_t;

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 0;  // too few registers for the lanes
#endif

template <class T> struct SumOf { using type = std::uint32_t; };  // wraps around
template <> struct SumOf<std::int64_t> { using type = std::uint64_t; };
template <> struct SumOf<float> { using type = double; };
template <> struct SumOf<double> { using type = double; };

// The fold of Sum and Mean, which differ only in the final step.
template <class T, class A> struct Adding {
  using Element = T;
  using Acc = A;
  static constexpr Acc start = 0;
  static constexpr T neutral = 0;
  [[gnu::always_inline]] static Acc take(Acc a, T x) { return a + static_cast<Acc>(x); }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return a + b; }
  template <class V> [[gnu::always_inline]] static V join_numbers(V a, V b) { return a + b; }
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
  static constexpr T neutral = 1;
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
  static constexpr T neutral = start;
  // Of vectors, or numbers, without NaN: the same choice in one instruction.
  template <class V> [[gnu::always_inline]] static V take_number(V a, V x) { return x > a ? x : a; }
  template <class V> [[gnu::always_inline]] static V join_numbers(V a, V b) { return take_number(a, b); }
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
  static constexpr T neutral = start;
  // Of vectors, or numbers, without NaN: the same choice in one instruction.
  template <class V> [[gnu::always_inline]] static V take_number(V a, V x) { return x < a ? x : a; }
  template <class V> [[gnu::always_inline]] static V join_numbers(V a, V b) { return take_number(a, b); }
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
  static constexpr T neutral = 1;
  [[gnu::always_inline]] static Acc take(Acc a, T x) { return a + (x == T(0) ? 1.0 : 0.0); }
  [[gnu::always_inline]] static Acc join(Acc a, Acc b) { return a + b; }
  static Out result(Acc a, double) { return a; }
};

constexpr std::int64_t kLanes = 32;

// Whether a fold chooses among floats: its loops treat runs without NaN apart.
template <class F> constexpr bool chooses_float =
    std::is_floating_point_v<typename F::Element> && std::is_same_v<typename F::Element, typename F::Acc> &&
    requires(typename F::Acc a) { F::take_number(a, a); };
template <class F> constexpr bool adds_float = std::is_same_v<F, Adding<float, double>>;
template <class F> constexpr bool adds_double = std::is_same_v<F, Adding<double, double>>;

// Folds complete groups of kRows * kLanes elements from x[i] on, in order, and returns the index after them. Not
// inlined: that would double GCC's time for this file and not make it faster.
template <class F, int kRows>
[[gnu::noinline]] std::int64_t fold_lanes(typename F::Acc* __restrict lane, const typename F::Element* __restrict x,
                                          std::int64_t i, std::int64_t n) {
  for (; i + kRows * kLanes <= n; i += kRows * kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) {
      auto a = lane[j];
      for (int r = 0; r < kRows; ++r) a = F::take(a, x[i + j + r * kLanes]);
      lane[j] = a;
    }
  return i;
}

template <class F, std::int64_t width> [[gnu::always_inline]] inline void join_lanes(typename F::Acc* lane) {
  for (std::int64_t j = 0; j < width; ++j) lane[j] = F::join(lane[j], lane[j + width]);
  if constexpr (width > 1) join_lanes<F, width / 2>(lane);
}

// The last `rest` of n >= kLanes elements, in a group of which the others change nothing.
template <class F> struct LastGroup {
  LastGroup(const typename F::Element* x, std::int64_t n, std::int64_t rest) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const auto y = x[n - kLanes + j];
      group[j] = j < kLanes - rest ? F::neutral : y;
    }
  }
  alignas(64) typename F::Element group[kLanes];
};

// The fold of n >= kLanes elements.
template <class F> typename F::Acc fold_row(const typename F::Element* x, std::int64_t n) {
  alignas(64) typename F::Acc lane[kLanes];
  for (int j = 0; j < kLanes; ++j) lane[j] = F::start;
  std::int64_t i = fold_lanes<F, 8>(lane, x, 0, n);
  i = fold_lanes<F, 1>(lane, x, i, n);
  if (i < n) {
    const LastGroup<F> last(x, n, n - i);
    fold_lanes<F, 1>(lane, last.group, 0, kLanes);
  }
  join_lanes<F, kLanes / 2>(lane);
  return lane[0];
}

#if defined(__AVX2__)
// The lanes of floating-point folds stay in registers. Elements go into the same lanes in the same order as above, and
// the lanes are joined in the same order: the bits are the same.
template <class T> struct VectorOf {
  using type [[gnu::vector_size(kVectorBytes)]] = T;
};
template <class T> using Vector = typename VectorOf<T>::type;
template <class T> constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));
template <class T> [[gnu::always_inline]] inline Vector<T> load(const T* x) {
  Vector<T> y;
  __builtin_memcpy(&y, x, sizeof y);
  return y;
}

// 1 as the compiler does not know it. The product with it is exact, so that a + x * one has the bits of a + x; but it is
// one instruction, which runs in other units than the conversion of x, so that both run in the same cycle.
[[gnu::always_inline]] inline Vector<double> unknown_one() {
  double one = 1.0;
  asm("" : "+m"(one));
  return one - Vector<double>{};
}
[[gnu::always_inline]] inline Vector<double> add_vector(Vector<double> a, const float* x, Vector<double> one) {
#if defined(__AVX512F__)
  // With a mask of all lanes, because GCC warns of an undefined value in the form without one.
  return _mm512_fmadd_pd(_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(x)), one, a);
#else
  return _mm256_fmadd_pd(_mm256_cvtps_pd(_mm_loadu_ps(x)), one, a);
#endif
}
[[gnu::always_inline]] inline Vector<double> add_vector(Vector<double> a, const double* x, Vector<double>) {
  return a + load(x);
}

template <class F, int count> [[gnu::always_inline]] inline typename F::Acc join_vectors(Vector<typename F::Acc>* lanes) {
  constexpr int width = kWidth<typename F::Acc>;
  if constexpr (count > 1) {
#pragma GCC unroll 16
    for (int v = 0; v < count / 2; ++v) lanes[v] = F::join_numbers(lanes[v], lanes[v + count / 2]);
    return join_vectors<F, count / 2>(lanes);
  } else {
    alignas(64) typename F::Acc lane[width];
    __builtin_memcpy(lane, lanes, sizeof lane);
    join_lanes<F, width / 2>(lane);
    return lane[0];
  }
}

template <class F, class T> [[gnu::noinline]] double add_row(const T* x, std::int64_t n) {
  constexpr int width = kWidth<double>, count = kLanes / width;
  Vector<double> sum[count];
#pragma GCC unroll 16
  for (int v = 0; v < count; ++v) sum[v] = Vector<double>{};
  const Vector<double> one = unknown_one();
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) sum[v] = add_vector(sum[v], x + i + v * width, one);
  if (i < n) {
    const LastGroup<F> last(x, n, n - i);
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) sum[v] = add_vector(sum[v], last.group + v * width, one);
  }
  return join_vectors<F, count>(sum);
}

// The largest or the smallest. A row with a NaN goes through the loop that propagates it.
template <class F> [[gnu::noinline]] typename F::Acc choose_row(const typename F::Element* x, std::int64_t n) {
  using V = Vector<typename F::Element>;
  constexpr int width = kWidth<typename F::Element>, count = kLanes / width;
  V best[count];
#pragma GCC unroll 16
  for (int v = 0; v < count; ++v) best[v] = F::start - V{};
  auto nan = best[0] != best[0];
  const auto take = [&](const typename F::Element* group) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) {
      const V y = load(group + v * width);
      best[v] = F::take_number(best[v], y);
      nan |= y != y;
    }
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) take(x + i);
  if (i < n) take(LastGroup<F>(x, n, n - i).group);
  bool any = false;
  for (int j = 0; j < width; ++j) any = any || nan[j] != 0;
  return any ? fold_row<F>(x, n) : join_vectors<F, count>(best);
}
#endif

template <class F> [[gnu::always_inline]] inline typename F::Acc best_row(const typename F::Element* x, std::int64_t n) {
#if defined(__AVX2__)
  if constexpr (adds_float<F> || adds_double<F>) return add_row<F>(x, n);
  else if constexpr (chooses_float<F>) return choose_row<F>(x, n);
  else
#endif
    return fold_row<F>(x, n);
}

// The loops of the fold F.
template <class F> struct Loops {
  using T = typename F::Element;
  using Acc = typename F::Acc;

  static void init(void* acc, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) static_cast<Acc*>(acc)[i] = F::start;
  }

  static void row(void* acc, const void* data, std::int64_t n) {
    const T* x = static_cast<const T*>(data);
    Acc total = F::start;
    if (n >= kLanes) total = best_row<F>(x, n);
    else
      for (std::int64_t i = 0; i < n; ++i) total = F::take(total, x[i]);
    *static_cast<Acc*>(acc) = F::join(*static_cast<Acc*>(acc), total);
  }

  // Four rows without a NaN into n <= kAtOnce results; false if there is one.
  static constexpr std::int64_t kAtOnce = 128;
  static bool choose_columns(Acc* __restrict to, const T* __restrict x, std::int64_t stride, std::int64_t n) {
    using Flag = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    alignas(64) Acc best[kAtOnce];
    Flag nan = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const T a = x[i], b = x[i + stride], c = x[i + 2 * stride], d = x[i + 3 * stride];
      nan |= (a != a ? Flag(-1) : Flag(0)) | (b != b ? Flag(-1) : Flag(0)) | (c != c ? Flag(-1) : Flag(0)) |
             (d != d ? Flag(-1) : Flag(0));
      best[i] = F::template take_number<T>(
          F::template take_number<T>(F::template take_number<T>(F::template take_number<T>(to[i], a), b), c), d);
    }
    if (nan) return false;
    __builtin_memcpy(to, best, static_cast<std::size_t>(n) * sizeof(Acc));
    return true;
  }

  static void columns(void* acc, const void* data, std::int64_t stride, std::int64_t rows, std::int64_t n) {
    const T* x = static_cast<const T*>(data);
    Acc* to = static_cast<Acc*>(acc);
    std::int64_t r = 0;
    for (; r + 4 <= rows; r += 4, x += 4 * stride) {
      if constexpr (chooses_float<F>) {
        for (std::int64_t at = 0; at < n; at += kAtOnce) {
          const std::int64_t m = n - at < kAtOnce ? n - at : kAtOnce;
          if (!choose_columns(to + at, x + at, stride, m)) four_rows(to + at, x + at, stride, m);
        }
      } else {
        four_rows(to, x, stride, n);
      }
    }
    for (; r < rows; ++r, x += stride) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) to[i] = F::take(to[i], x[i]);
    }
  }
  [[gnu::always_inline]] static void four_rows(Acc* to, const T* x, std::int64_t stride, std::int64_t n) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i)
      to[i] = F::take(F::take(F::take(F::take(to[i], x[i]), x[i + stride]), x[i + 2 * stride]), x[i + 3 * stride]);
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
    if (best != best) return first(x, n, [](T y) __attribute__((always_inline)) { return y != y; });
    return first(x, n, [best](T y) __attribute__((always_inline)) { return y == best; });
  }

  // Block by block, because a loop that may end at any element is not vectorised.
  template <std::int64_t kBlock = 256, class Wanted>
  [[gnu::always_inline]] static std::int64_t first(const T* x, std::int64_t n, Wanted wanted, std::int64_t i = 0) {
    using Flag = std::conditional_t<sizeof(T) == 8, std::int64_t, std::conditional_t<sizeof(T) == 4, std::int32_t, Bool>>;
    for (; i + kBlock <= n; i += kBlock) {
      Flag any = 0;
      for (std::int64_t j = 0; j < kBlock; ++j) any |= static_cast<Flag>(wanted(x[i + j]));
      if (any) break;
    }
    if constexpr (kBlock > 32) return first<32>(x, n, wanted, i);
    for (; i < n; ++i)
      if (wanted(x[i])) return i;
    return 0;
  }

  static void rows(std::int32_t* out, const void* data, std::int64_t n, std::int64_t count) {
    const T* x = static_cast<const T*>(data);
    std::int64_t r = 0;
    if (n < kLanes)
      for (; r + kTogether <= count; r += kTogether, x += kTogether * n) short_rows(out + r, x, n);
    for (; r < count; ++r, x += n) out[r] = static_cast<std::int32_t>(row(x, n));
  }

  // kTogether rows of n < kLanes elements, by columns.
  static constexpr std::int64_t kTogether = 16;
  static void short_rows(std::int32_t* __restrict out, const T* __restrict x, std::int64_t n) {
    alignas(64) T column[kLanes][kTogether], best[kTogether];
    alignas(64) std::int32_t place[kTogether];
    for (std::int64_t j = 0; j < kTogether; ++j)
      for (std::int64_t i = 0; i < n; ++i) column[i][j] = x[j * n + i];
    for (std::int64_t j = 0; j < kTogether; ++j) {
      best[j] = column[0][j];
      place[j] = 0;
    }
    for (std::int64_t i = 1; i < n; ++i)
      for (std::int64_t j = 0; j < kTogether; ++j) {
        const bool better = better_than(best[j], column[i][j]);
        best[j] = better ? column[i][j] : best[j];
        place[j] = better ? static_cast<std::int32_t>(i) : place[j];
      }
    __builtin_memcpy(out, place, sizeof place);
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

  static constexpr ArgFold fold{sizeof(T), row, rows, columns, better};
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
