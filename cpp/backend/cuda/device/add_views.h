// Adds an array to a view of the result, in place: a thread for each of kEach elements, none of which meet.
//
// Slots: 2 the array, 3 the view's first element, 4 the number of elements, 5 to 12 the lengths of the axes, 13 to 20
// the view's strides.

constexpr int kEach = 4, kAxes = 8;

OWL_KERNEL(owl_add_views) {
  const T* const x = pointer<const T>(args, 2);
  T* const to = pointer<T>(args, 3);
  const Index size = static_cast<Index>(integer(args, 4));
  OWL_THREADS(t) {
    for (int k = 0; k < kEach; ++k) {
      const Index i = (block * kEach + k) * kBlock + t;
      if (i >= size) continue;
      Index rest = i, offset = 0;
      for (int axis = 0; axis < kAxes; ++axis) {
        const Index length = static_cast<Index>(integer(args, 5 + axis));
        offset += rest % length * static_cast<Index>(integer(args, 13 + axis));
        rest /= length;
      }
      to[offset] += x[i];
    }
  }
}
