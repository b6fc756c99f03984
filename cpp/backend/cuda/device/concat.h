// Copies one operand of a concatenation into the result: contiguous runs, evenly spaced in the result. A thread copies
// kEach units of T.
//
// Slots: 2 the operand, 3 the address of its first run in the result, 4 the number of units, 5 of a run, 6 from one run
// to the next.

constexpr int kEach = 4;

OWL_KERNEL(owl_concat) {
  const T* const from = pointer<const T>(args, 2);
  T* const to = pointer<T>(args, 3);
  const Index units = static_cast<Index>(integer(args, 4)), run = static_cast<Index>(integer(args, 5));
  const Index gap = static_cast<Index>(integer(args, 6)) - run;
  OWL_THREADS(t) {
    OWL_UNROLL for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i < units) to[i + i / run * gap] = from[i];
    }
  }
}
