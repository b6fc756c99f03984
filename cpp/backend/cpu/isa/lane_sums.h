// Sums of rows in independent partial sums, so that additions do not wait for each other. Included by files that are
// compiled once per instruction set.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace owl::cpu::OWL_ISA {
namespace {

constexpr std::int64_t kLanes = 16;

// The partial sums run in T over kPart elements, few enough for a float, and are added in double, so that the error
// does not grow with the number of elements.
constexpr std::int64_t kPart = 64 * kLanes;

template <class T> T join_lanes(T* lane) {
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
    for (std::int64_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  return lane[0];
}

template <class T> struct LaneSums {
  T lane[kLanes] = {};
  double total[kLanes] = {};

  void next_part() {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      total[j] += static_cast<double>(lane[j]);
      lane[j] = 0;
    }
  }
  double join() {
    next_part();
    return join_lanes(total);
  }
};

// ---- the same lanes in registers

#if defined(__AVX512F__)
constexpr int kRegister = 64;  // bytes
#elif defined(__AVX2__)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif
template <class T, int bytes> struct VectorOf {
  using type [[gnu::vector_size(bytes)]] = T;
};
template <class T, int bytes = kRegister> using Lane = typename VectorOf<T, bytes>::type;
template <class T> constexpr int kWide = kRegister / static_cast<int>(sizeof(T));
template <class T> constexpr int kRegisters = static_cast<int>(kLanes) / kWide<T>;

// Where the elements of a sum come from: element i; those from i on that fill a register; and `n` of these, with zeros
// behind them. All convert to T.
template <class T> struct One {
  std::int64_t i;
  template <class U> [[gnu::always_inline]] T operator()(const U* x) const { return static_cast<T>(x[i]); }
};
template <class T> struct Many {
  std::int64_t i;
  template <class U> [[gnu::always_inline]] Lane<T> operator()(const U* x) const {
    Lane<U, kWide<T> * sizeof(U)> y;
    __builtin_memcpy(&y, x + i, sizeof y);
    return __builtin_convertvector(y, Lane<T>);
  }
};
template <class T> struct Some {
  std::int64_t i, n;
  template <class U> [[gnu::always_inline]] Lane<T> operator()(const U* x) const {
#if defined(__AVX512F__)
    const auto mask = static_cast<unsigned>((1u << n) - 1);
    if constexpr (std::is_same_v<U, float> && std::is_same_v<T, float>)
      return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x + i);
    else if constexpr (std::is_same_v<U, float>)
      return _mm512_maskz_cvtps_pd(0xff, _mm256_maskz_loadu_ps(static_cast<__mmask8>(mask), x + i));
    else return _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), x + i);
#elif defined(__AVX2__)
    if constexpr (std::is_same_v<U, float> && std::is_same_v<T, float>) {
      const __m256i at = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      return _mm256_maskload_ps(x + i, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), at));
    } else if constexpr (std::is_same_v<U, float>) {
      const __m128i at = _mm_setr_epi32(0, 1, 2, 3);
      return _mm256_cvtps_pd(_mm_maskload_ps(x + i, _mm_cmpgt_epi32(_mm_set1_epi32(static_cast<int>(n)), at)));
    } else {
      const __m256i at = _mm256_setr_epi64x(0, 1, 2, 3);
      return _mm256_maskload_pd(x + i, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), at));
    }
#else
    Lane<T> y{};
    for (int j = 0; j < kWide<T>; ++j)
      if (j < n) y[j] = static_cast<T>(x[i + j]);
    return y;
#endif
  }
  // Zeros behind the first n of y.
  [[gnu::always_inline]] Lane<T> first_of(Lane<T> y) const {
    using Index = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    Lane<Index> at;
    for (int j = 0; j < kWide<T>; ++j) at[j] = j;
    return reinterpret_cast<Lane<T>>(reinterpret_cast<Lane<Index>>(y) & (at < static_cast<Index>(n)));
  }
};

template <int from, class V, int... at>
[[gnu::always_inline]] inline auto part_of(V v, std::integer_sequence<int, at...>) {
  return __builtin_shufflevector(v, v, (from + at)...);
}
// The upper half is added to the lower one until one lane is left: the order of join_lanes.
template <class T, int bytes> [[gnu::always_inline]] inline T join_lane(Lane<T, bytes> v) {
  constexpr int half = bytes / static_cast<int>(sizeof(T)) / 2;
  if constexpr (bytes == 16 && half == 2) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  } else if constexpr (bytes == 16) {
    return v[0] + v[1];
  } else {
    using At = std::make_integer_sequence<int, half>;
    return join_lane<T, bytes / 2>(part_of<0>(v, At()) + part_of<half>(v, At()));
  }
}
template <class T, int count> [[gnu::always_inline]] inline T join_registers(Lane<T>* lane) {
#pragma GCC unroll 8
  for (int v = 0; v < count / 2; ++v) lane[v] += lane[v + count / 2];
  if constexpr (count > 1) return join_registers<T, count / 2>(lane);
  else return join_lane<T, kRegister>(lane[0]);
}

template <class T> [[gnu::always_inline]] inline void add_part(Lane<double>* total, const Lane<T>* lane) {
  if constexpr (std::is_same_v<T, double>) {
#pragma GCC unroll 8
    for (int v = 0; v < kRegisters<T>; ++v) total[v] += lane[v];
  } else {
    using At = std::make_integer_sequence<int, kWide<double>>;
#pragma GCC unroll 8
    for (int v = 0; v < kRegisters<T>; ++v) {
      total[2 * v] += __builtin_convertvector(part_of<0>(lane[v], At()), Lane<double>);
      total[2 * v + 1] += __builtin_convertvector(part_of<kWide<double>>(lane[v], At()), Lane<double>);
    }
  }
}

// The lanes' sums of the elements [begin, end), which are at most kPart.
template <class T, class Element>
[[gnu::always_inline]] inline void sum_part(Lane<T>* lane, std::int64_t begin, std::int64_t end, Element element) {
#pragma GCC unroll 8
  for (int v = 0; v < kRegisters<T>; ++v) lane[v] = Lane<T>{};
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes)
#pragma GCC unroll 8
    for (int v = 0; v < kRegisters<T>; ++v) lane[v] += element(Many<T>{i + v * kWide<T>});
#pragma GCC unroll 8
  for (int v = 0; v < kRegisters<T>; ++v) {
    const std::int64_t from = i + v * kWide<T>, n = end - from < kWide<T> ? end - from : kWide<T>;
    if (n <= 0) break;
    const Some<T> some{from, n};
    lane[v] += some.first_of(element(some));
  }
}

// The sum of element(at) over i < n, where at(x) is x[i] in T: one of them, or a register of them.
template <class T, class Element> [[gnu::always_inline]] inline double sum_of(std::int64_t n, Element element) {
  if (n < kLanes) {
    T total = 0;
    for (std::int64_t i = 0; i < n; ++i) total += element(One<T>{i});
    return static_cast<double>(total);
  }
  Lane<T> lane[kRegisters<T>];
  if (n <= kPart) {
    sum_part<T>(lane, 0, n, element);
    return static_cast<double>(join_registers<T, kRegisters<T>>(lane));
  }
  Lane<double> total[kRegisters<double>];
#pragma GCC unroll 8
  for (int v = 0; v < kRegisters<double>; ++v) total[v] = Lane<double>{};
  for (std::int64_t begin = 0; begin < n; begin += kPart) {
    sum_part<T>(lane, begin, n - begin < kPart ? n : begin + kPart, element);
    add_part<T>(total, lane);
  }
  return join_registers<double, kRegisters<double>>(total);
}

}  // namespace
}  // namespace owl::cpu::OWL_ISA
