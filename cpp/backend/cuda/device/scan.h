// The sums of the elements so far along an axis. The array is [inner, length, outer]: inner * outer lines of `length`
// elements, `inner` apart. kLanes threads process a line, each a part of it: the sum of each part comes first, then the
// sums so far from the total of the parts in front.
//
// Defined in front: T and R, the elements' type; kLanes, a power of 2; kBackwards: from the end of a line to its start.
//
// Slots: 2 inner, 3 length, 4 the number of lines.

using owl::elementwise_ops::same;

constexpr int kAcross = kBlock / kLanes;  // lines of a block
using Sum = Choose<same<T, float> || same<T, double>, double, Choose<sizeof(T) == 8, uint64_t, uint32_t>::type>::type;  // as on the CPU

// The elements of a thread: first + k * step for k < count.
struct Share {
  Index first, step, count;
};
OWL_DEVICE Share share_of(const Arguments& args, Index block, int t) {
  const Index inner = static_cast<Index>(integer(args, 2)), length = static_cast<Index>(integer(args, 3));
  const Index line = block * kAcross + t % kAcross, each = (length + kLanes - 1) / kLanes;
  const Index begin = t / kAcross * each;
  const Index count = line >= integer(args, 4) || begin >= length ? 0 : length - begin < each ? length - begin : each;
  const Index from = line % inner + line / inner * inner * length;
  return {from + (kBackwards ? length - 1 - begin : begin) * inner, kBackwards ? -inner : inner, count};
}

OWL_KERNEL(owl_cumsum) {
  OWL_SHARED Sum part[kBlock];
  OWL_SHARED Sum before[kBlock];
  if constexpr (kLanes > 1) {
    OWL_THREADS(t) {
      const Share share = share_of(args, block, t);
      Sum sum = 0;
      for (Index k = 0; k < share.count; ++k) sum += static_cast<Sum>(load(args, share.first + k * share.step));
      part[t] = sum;
    }
    OWL_SYNC;
    OWL_THREADS(t) {
      Sum sum = 0;
      for (int lane = t % kAcross; lane < t; lane += kAcross) sum += part[lane];
      before[t] = sum;
    }
    OWL_SYNC;
  }
  OWL_THREADS(t) {
    const Share share = share_of(args, block, t);
    Sum sum = kLanes > 1 ? before[t] : Sum(0);
    for (Index k = 0; k < share.count; ++k) {
      const Index i = share.first + k * share.step;
      sum += static_cast<Sum>(load(args, i));
      store(args, i, static_cast<R>(sum));
    }
  }
}
