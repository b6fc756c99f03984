// Sorting along an axis. An element becomes a key, whose order as a number is the order wanted, with its place below
// it: no two are equal, so that any way of sorting is stable and gives the same result.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "backend/cpu/onednn.h"
#include "backend/cpu/take.h"
#include "base/visit_dtype.h"
#include "ops/sort.h"
#include "ops/take.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kRun = 1 << 16;            // elements that one chunk sorts
constexpr std::int64_t kChunkElements = 1 << 14;
constexpr std::int64_t kFew = 128;                // comparing so many is quicker than counting their digits
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;

// Unsigned, in the order of the elements: NaN is the largest, -0 equals 0.
template <class T> auto key_of(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    using U = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    constexpr U kSign = U{1} << (8 * sizeof(T) - 1);
    if (std::isnan(x)) return std::numeric_limits<U>::max();
    const U bits = std::bit_cast<U>(x == 0 ? T{0} : x);
    return bits & kSign ? static_cast<U>(~bits) : static_cast<U>(bits | kSign);
  } else if constexpr (std::is_signed_v<T>) {
    using U = std::make_unsigned_t<T>;
    return static_cast<U>(static_cast<U>(x) ^ (U{1} << (8 * sizeof(T) - 1)));
  } else {
    return x;
  }
}

// A key and a place in one number where they fit.
struct Wide {
  std::uint64_t key;
  std::uint32_t place;
  bool operator<(const Wide& o) const { return key != o.key ? key < o.key : place < o.place; }
};
template <class T> using Item = std::conditional_t<sizeof(T) == 8, Wide, std::uint64_t>;

template <class T> Item<T> item_of(T x, std::int64_t place, bool largest_first) {
  auto key = key_of(x);
  if (largest_first) key = static_cast<decltype(key)>(~key);
  if constexpr (sizeof(T) == 8) return {key, static_cast<std::uint32_t>(place)};
  else return std::uint64_t{key} << 32 | static_cast<std::uint64_t>(place);
}
inline std::int64_t place_of(const Wide& item) { return item.place; }
inline std::int64_t place_of(std::uint64_t item) { return static_cast<std::int64_t>(item & 0xffffffff); }

inline std::size_t digit_of(const Wide& item, int pass) { return item.key >> (pass * kDigitBits) & (kDigits - 1); }
inline std::size_t digit_of(std::uint64_t item, int pass) { return item >> (32 + pass * kDigitBits) & (kDigits - 1); }

// Sorts items that are in the order of their places: digit by digit, from the lowest, in a stable way, so that the
// places need not be looked at. Returns which of the two blocks of memory then has them.
template <class I> I* sort_digits(I* items, I* other, std::int64_t n) {
  constexpr int kPasses = static_cast<int>(sizeof(std::uint64_t) / (std::is_same_v<I, Wide> ? 1 : 2)) * 8 / kDigitBits;
  std::int64_t counts[kPasses][kDigits] = {};
  for (std::int64_t k = 0; k < n; ++k)
    for (int pass = 0; pass < kPasses; ++pass) ++counts[pass][digit_of(items[k], pass)];
  for (int pass = 0; pass < kPasses; ++pass) {
    auto& next = counts[pass];
    if (next[digit_of(items[0], pass)] == n) continue;  // all have the same
    std::int64_t at = 0;
    for (auto& count : next) at += std::exchange(count, at);
    for (std::int64_t k = 0; k < n; ++k) other[next[digit_of(items[k], pass)]++] = items[k];
    std::swap(items, other);
  }
  return items;
}

// The first `wanted` of n items, which are in the order of their places.
template <class I> I* sort_items(I* items, I* other, std::int64_t n, std::int64_t wanted) {
  if (wanted < n) {
    std::nth_element(items, items + wanted, items + n);
    std::sort(items, items + wanted);
    return items;
  }
  if (n > kFew) return sort_digits(items, other, n);
  std::sort(items, items + n);
  return items;
}

template <class T> struct Sorter {
  AroundAxis x;
  std::int64_t count;  // of each line, the elements that are kept
  bool largest_first;
  const T* from;
  T* values;             // null: not wanted
  std::int32_t* places;  // null: not wanted

  const T* line(std::int64_t i) const { return from + i % x.inner + i / x.inner * x.inner * x.length; }
  void read(std::int64_t i, std::int64_t begin, std::int64_t n, Item<T>* items) const {
    const T* const elements = line(i);
    for (std::int64_t k = 0; k < n; ++k) items[k] = item_of(elements[(begin + k) * x.inner], begin + k, largest_first);
  }
  void write(std::int64_t i, std::int64_t begin, std::int64_t end, const Item<T>* items) const {
    const T* const elements = line(i);
    const std::int64_t at = i % x.inner + i / x.inner * x.inner * count;
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t place = place_of(items[k]);
      if (values) values[at + k * x.inner] = elements[place * x.inner];
      if (places) places[at + k * x.inner] = static_cast<std::int32_t>(place);
    }
  }
};

// How many of the first `n` elements of two sorted runs, merged, are from the first.
template <class I> std::int64_t split(const I* a, std::int64_t of_a, const I* b, std::int64_t of_b, std::int64_t n) {
  std::int64_t low = std::max<std::int64_t>(0, n - of_b), high = std::min(n, of_a);
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (a[middle] < b[n - 1 - middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Elements [begin, end) of the line that has its sorted runs of `run` elements merged in pairs.
template <class I>
void merge_range(const I* from, I* to, std::int64_t length, std::int64_t run, std::int64_t begin, std::int64_t end) {
  while (begin < end) {
    const std::int64_t first = begin / (2 * run) * 2 * run, middle = std::min(length, first + run);
    const std::int64_t last = std::min(length, first + 2 * run), until = std::min(end, last);
    const I *a = from + first, *b = from + middle;
    const std::int64_t i = split(a, middle - first, b, last - middle, begin - first);
    const std::int64_t j = split(a, middle - first, b, last - middle, until - first);
    std::merge(a + i, a + j, b + (begin - first - i), b + (until - first - j), to + begin);
    begin = until;
  }
}

// Lines that are longer than a run: runs are sorted, then merged in pairs.
template <class T> void launch_long(const Sorter<T>& s, Launch& launch) {
  using I = Item<T>;
  const std::int64_t length = s.x.length, lines = s.x.inner * s.x.outer, runs = (length + kRun - 1) / kRun;
  const auto bytes = static_cast<std::size_t>(lines * length) * sizeof(I);
  I *now = static_cast<I*>(launch.scratch(bytes)), *next = static_cast<I*>(launch.scratch(bytes));
  launch.stage(lines * runs, [=](std::int64_t chunk) {
    const std::int64_t i = chunk / runs, begin = chunk % runs * kRun, n = std::min(kRun, length - begin);
    I *const items = now + i * length + begin, *const other = next + i * length + begin;
    s.read(i, begin, n, items);
    if (sort_items(items, other, n, n) == other) std::copy_n(other, n, items);
  });
  for (std::int64_t run = kRun; run < length; run *= 2) {
    launch.stage(lines * runs, [=](std::int64_t chunk) {
      const std::int64_t i = chunk / runs, begin = chunk % runs * kRun, end = std::min(length, begin + kRun);
      merge_range(now + i * length, next + i * length, length, run, begin, end);
    });
    std::swap(now, next);
  }
  launch.stage(lines * runs, [=](std::int64_t chunk) {
    const std::int64_t i = chunk / runs, begin = chunk % runs * kRun;
    s.write(i, std::min(begin, s.count), std::min(begin + kRun, s.count), now + i * length);
  });
}

template <class T> void launch_sort(const KernelArgs& args, Launch& launch) {
  const auto& p = static_cast<const SortParams&>(*args.params);
  const Sorter<T> s{AroundAxis(args.in[0].shape, p.axis), p.count, p.largest_first, args.in[0].as<const T>(),
                    args.results[0].as<T>(), args.results[1].as<std::int32_t>()};
  const std::int64_t length = s.x.length, lines = s.x.inner * s.x.outer;
  if (lines == 0 || s.count == 0) return;
  if (length > kRun) return launch_long(s, launch);
  const std::int64_t each = std::max<std::int64_t>(1, kChunkElements / length);
  launch.stage((lines + each - 1) / each, [=](std::int64_t chunk) {
    const auto bytes = static_cast<std::size_t>(length) * sizeof(Item<T>);
    ThreadScratch scratch(2 * ThreadScratch::padded(bytes));
    auto* const items = reinterpret_cast<Item<T>*>(scratch.take(bytes));
    auto* const other = reinterpret_cast<Item<T>*>(scratch.take(bytes));
    for (std::int64_t i = chunk * each; i < std::min(lines, (chunk + 1) * each); ++i) {
      s.read(i, 0, length, items);
      s.write(i, 0, s.count, sort_items(items, other, length, s.count));
    }
  });
}

}  // namespace

void sort(const KernelArgs& args, Launch& launch) {
  visit_computed("sort", args.in[0].dtype, [&]<class T>() { launch_sort<T>(args, launch); });
}

}  // namespace owl::cpu
