// Choosing elements of an axis by indices, and adding to them. Arrays are [inner, length, outer] around the axis. A
// thread handles kEach elements.
//
// Defined in front: one of OWL_CHECK_INDICES, OWL_TAKE, OWL_PUT_ADD_KEYS and OWL_PUT_ADD, and the types named there.

constexpr int kEach = 4;

#ifdef OWL_CHECK_INDICES

// I, the indices' type. Slots: 2 the number of indices, 3 the axis' length, 4 whether negative indices count from the
// end, 5 memory of the host for an index out of range, in whose place is 0.
OWL_KERNEL(owl_check_indices) {
  const I* const indices = pointer<const I>(args, 0);
  int32_t* const places = pointer<int32_t>(args, 1);
  const Index count = static_cast<Index>(integer(args, 2));
  const int64_t length = integer(args, 3);
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= count) continue;
      const int64_t index = static_cast<int64_t>(indices[i]);
      const int64_t place = index < 0 && integer(args, 4) ? index + length : index;
      const bool is_there = place >= 0 && place < length;
      if (!is_there) *pointer<int64_t>(args, 5) = index;
      places[i] = is_there ? static_cast<int32_t>(place) : 0;
    }
  }
}

#endif
#ifdef OWL_TAKE

// T and R, the elements' type. Slots: 2 the places, 3 their number, 4 inner, 5 length, 6 the number of results.
OWL_KERNEL(owl_take) {
  const T* const x = pointer<const T>(args, 0);
  const int32_t* const places = pointer<const int32_t>(args, 2);
  const Index count = static_cast<Index>(integer(args, 3)), inner = static_cast<Index>(integer(args, 4));
  const Index length = static_cast<Index>(integer(args, 5)), size = static_cast<Index>(integer(args, 6));
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= size) continue;
      const Index row = i / inner;
      store(args, i, x[(row / count * length + places[row % count]) * inner + i % inner]);
    }
  }
}

#endif
#ifdef OWL_PUT_ADD_KEYS

// Slots: 2 the places, 3 their number, 4 the keys: a place, and below it which index it is of.
OWL_KERNEL(owl_put_add_keys) {
  const int32_t* const places = pointer<const int32_t>(args, 2);
  const Index count = static_cast<Index>(integer(args, 3));
  uint64_t* const keys = pointer<uint64_t>(args, 4);
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index j = (block * kEach + k) * kBlock + t;
      if (j < count) keys[j] = static_cast<uint64_t>(places[j]) << 32 | static_cast<uint64_t>(j);
    }
  }
}

#endif
#ifdef OWL_PUT_ADD

// T, the elements' type, or uint32_t for int32. Slots: 2 the result, which has x's elements, 3 the sorted keys, 4 their
// number, 5 the values, 6 inner, 7 length, 8 the number of values. The thread of a place's first key adds all of its
// values.
OWL_KERNEL(owl_put_add) {
  T* const y = pointer<T>(args, 2);
  const uint64_t* const keys = pointer<const uint64_t>(args, 3);
  const T* const values = pointer<const T>(args, 5);
  const Index count = static_cast<Index>(integer(args, 4)), inner = static_cast<Index>(integer(args, 6));
  const Index length = static_cast<Index>(integer(args, 7)), size = static_cast<Index>(integer(args, 8));
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= size) continue;
      const Index within = i % inner, first = i / inner % count, outer = i / inner / count;
      const uint64_t place = keys[first] >> 32;
      if (first > 0 && keys[first - 1] >> 32 == place) continue;
      T* const to = y + (outer * length + static_cast<Index>(place)) * inner + within;
      T sum = *to;
      for (Index e = first; e < count && keys[e] >> 32 == place; ++e)
        sum += values[(outer * count + static_cast<Index>(keys[e] & 0xffffffff)) * inner + within];
      *to = sum;
    }
  }
}

#endif
