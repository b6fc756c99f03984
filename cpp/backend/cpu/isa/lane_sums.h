// Sums of rows in independent partial sums, so that additions do not wait for each other. Included by files that are
// compiled once per instruction set.
#pragma once

#include <cstdint>

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

// element(i) for i < n.
template <class T, class Element> [[gnu::always_inline]] inline double sum_of(std::int64_t n, Element element) {
  if (n < kLanes) {
    T total = 0;
    for (std::int64_t i = 0; i < n; ++i) total += element(i);
    return static_cast<double>(total);
  }
  LaneSums<T> s;
  for (std::int64_t begin = 0; begin < n; begin += kPart) {
    const std::int64_t end = n - begin < kPart ? n : begin + kPart;
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (std::int64_t j = 0; j < kLanes; ++j) s.lane[j] += element(i + j);
    for (std::int64_t j = 0; i + j < end; ++j) s.lane[j] += element(i + j);
    if (n <= kPart) return static_cast<double>(join_lanes(s.lane));
    s.next_part();
  }
  return s.join();
}

}  // namespace
}  // namespace owl::cpu::OWL_ISA
