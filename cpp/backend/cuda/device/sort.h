// Sorting: elements become keys whose order as numbers is the order wanted, with their places below them, so that no two
// are equal. Blocks sort runs of kRun keys, then runs are merged in pairs.
//
// Defined in front: Key, uint64_t or Wide; one of OWL_SORT_KEYS, OWL_SORT_RUNS, OWL_SORT_MERGE and OWL_SORT_WRITE; and
// T, the elements' type. Lines of keys lie one after another, those of elements are [inner, length, outer].

constexpr int kEach = 4, kRun = 1024;

struct Wide {
  uint64_t key;
  uint32_t place;
};
OWL_DEVICE bool less(uint64_t a, uint64_t b) { return a < b; }
OWL_DEVICE bool less(const Wide& a, const Wide& b) { return a.key != b.key ? a.key < b.key : a.place < b.place; }
OWL_DEVICE int64_t place_of(uint64_t a) { return static_cast<int64_t>(a & 0xffffffff); }
OWL_DEVICE int64_t place_of(const Wide& a) { return a.place; }

#ifdef OWL_SORT_KEYS

// Unsigned, in the order of the elements: NaN is the largest, -0 equals 0.
OWL_DEVICE uint64_t number_of(uint8_t x) { return x; }
OWL_DEVICE uint64_t number_of(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }
OWL_DEVICE uint64_t number_of(int64_t x) { return static_cast<uint64_t>(x) ^ uint64_t{1} << 63; }
OWL_DEVICE uint64_t number_of(float x) {
  if (x != x) return 0xffffffffu;
  const uint32_t bits = x == 0 ? 0 : __builtin_bit_cast(uint32_t, x);
  return bits >> 31 ? static_cast<uint32_t>(~bits) : bits | 0x80000000u;
}
OWL_DEVICE uint64_t number_of(double x) {
  if (x != x) return ~uint64_t{0};
  const uint64_t bits = x == 0 ? 0 : __builtin_bit_cast(uint64_t, x);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
OWL_DEVICE void set(uint64_t& to, uint64_t number, Index place) { to = number << 32 | static_cast<uint64_t>(place); }
OWL_DEVICE void set(Wide& to, uint64_t number, Index place) { to = {number, static_cast<uint32_t>(place)}; }

// Slots: 2 the keys, 3 inner, 4 length, 5 the number of elements, 6 the bits that are turned around for the largest
// first.
OWL_KERNEL(owl_sort_keys) {
  const T* const x = pointer<const T>(args, 0);
  Key* const keys = pointer<Key>(args, 2);
  const Index inner = static_cast<Index>(integer(args, 3)), length = static_cast<Index>(integer(args, 4));
  const Index size = static_cast<Index>(integer(args, 5));
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= size) continue;
      const Index line = i / length, place = i % length;
      const T element = x[line % inner + (line / inner * length + place) * inner];
      set(keys[i], number_of(element) ^ static_cast<uint64_t>(integer(args, 6)), place);
    }
  }
}

#endif
#ifdef OWL_SORT_RUNS

OWL_DEVICE void set_last(uint64_t& to) { to = ~uint64_t{0}; }
OWL_DEVICE void set_last(Wide& to) { to = {~uint64_t{0}, 0xffffffffu}; }

// A bitonic sort. Slots: 2 the keys, 3 length, 4 the number of runs of a line.
OWL_KERNEL(owl_sort_runs) {
  OWL_SHARED Key run[kRun];
  const Index length = static_cast<Index>(integer(args, 3)), runs = static_cast<Index>(integer(args, 4));
  const Index begin = block % runs * kRun, n = length - begin < kRun ? length - begin : kRun;
  Key* const keys = pointer<Key>(args, 2) + block / runs * length + begin;
  OWL_THREADS(t) {
    for (int i = t; i < kRun; i += kBlock) {
      if (i < n) run[i] = keys[i];
      else set_last(run[i]);
    }
  }
  for (int size = 2; size <= kRun; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      OWL_SYNC;
      OWL_THREADS(t) {
        for (int u = t; u < kRun / 2; u += kBlock) {
          const int low = u / step * 2 * step + u % step, high = low + step;
          if (less(run[high], run[low]) != ((low & size) == 0)) continue;
          const Key other = run[low];
          run[low] = run[high];
          run[high] = other;
        }
      }
    }
  OWL_SYNC;
  OWL_THREADS(t) {
    for (int i = t; i < n; i += kBlock) keys[i] = run[i];
  }
}

#endif
#ifdef OWL_SORT_MERGE

// A key's place in the merged run is its place in its own, and the number of smaller ones in the other. Slots: 2 from, 3
// to, 4 length, 5 the length of a run, 6 the number of keys.
OWL_KERNEL(owl_sort_merge) {
  const Index length = static_cast<Index>(integer(args, 4)), run = static_cast<Index>(integer(args, 5));
  const Index size = static_cast<Index>(integer(args, 6));
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= size) continue;
      const Key* const line = pointer<const Key>(args, 2) + i / length * length;
      const Index at = i % length, own = at / run, first = own / 2 * 2 * run;
      Index low = own % 2 ? first : first + run, high = low + run;
      if (low > length) low = length;
      if (high > length) high = length;
      const Index begin = low;
      const Key key = line[at];
      while (low < high) {
        const Index middle = (low + high) / 2;
        if (less(line[middle], key)) low = middle + 1;
        else high = middle;
      }
      pointer<Key>(args, 3)[i / length * length + first + (at - own * run) + (low - begin)] = key;
    }
  }
}

#endif
#ifdef OWL_SORT_WRITE

// Slots: 2 the sorted keys, 3 inner, 4 length, 5 how many of a line are kept, 6 the number of results, 7 the values and 8
// the places, each 0 if not wanted.
OWL_KERNEL(owl_sort_write) {
  const T* const x = pointer<const T>(args, 0);
  const Key* const keys = pointer<const Key>(args, 2);
  const Index inner = static_cast<Index>(integer(args, 3)), length = static_cast<Index>(integer(args, 4));
  const Index kept = static_cast<Index>(integer(args, 5)), size = static_cast<Index>(integer(args, 6));
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= size) continue;
      const Index within = i % inner, outer = i / inner / kept, line = outer * inner + within;
      const Index place = static_cast<Index>(place_of(keys[line * length + i / inner % kept]));
      if (integer(args, 7)) pointer<T>(args, 7)[i] = x[within + (outer * length + place) * inner];
      if (integer(args, 8)) pointer<int32_t>(args, 8)[i] = static_cast<int32_t>(place);
    }
  }
}

#endif
