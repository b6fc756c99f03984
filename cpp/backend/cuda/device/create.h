// Arrays of one value, and ranges. A thread makes kEach elements; adjacent threads make adjacent elements.
//
// Defined in front: T and R, the elements' type; OWL_FULL or OWL_ARANGE.
//
// Slots: 2 the number of elements; then 3 the value's bits; or 3 the start, 4 the step, both doubles, or integers
// with OWL_EXACT, for int64.

constexpr int kEach = 4;

#ifdef OWL_FULL

template <class To> OWL_DEVICE To low_bits(uint64_t bits) {
  if constexpr (sizeof(To) == 8) return __builtin_bit_cast(To, bits);
  else if constexpr (sizeof(To) == 4) return __builtin_bit_cast(To, static_cast<uint32_t>(bits));
  else if constexpr (sizeof(To) == 2) return __builtin_bit_cast(To, static_cast<uint16_t>(bits));
  else return static_cast<To>(static_cast<uint8_t>(bits));
}

OWL_KERNEL(owl_full) {
  const T value = low_bits<T>(args.slot[3]);
  OWL_THREADS(t) {
    OWL_UNROLL for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i < integer(args, 2)) store(args, i, value);
    }
  }
}

#endif

#ifdef OWL_ARANGE

#ifdef OWL_EXACT
OWL_DEVICE T element(const Arguments& args, Index i) { return integer(args, 3) + i * integer(args, 4); }
#else
OWL_DEVICE T element(const Arguments& args, Index i) {
  return owl::elementwise_ops::convert<double, T>(number(args, 3) + static_cast<double>(i) * number(args, 4));
}
#endif

OWL_KERNEL(owl_arange) {
  OWL_THREADS(t) {
    OWL_UNROLL for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i < integer(args, 2)) store(args, i, element(args, i));
    }
  }
}

#endif
