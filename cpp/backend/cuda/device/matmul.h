// The matrix product of integers, which wraps around. A block makes a tile of the result, a thread kEach x kEach elements
// of it; sums are kept in shared memory between steps along k.
//
// Defined in front: R, int32_t or int64_t. Slots: 2 and 3 the operands, 4 m, 5 n, 6 k, then the operands' strides: 7 down and 8
// right of the left one, 9 down and 10 right of the right one; then for each axis of products behind the leading two its
// length and its steps in the operands.

constexpr int kTile = 64, kDeep = 64 / sizeof(R), kEach = 4, kSide = kTile / kEach, kAxes = 6;
using U = Choose<sizeof(R) == 8, uint64_t, uint32_t>::type;

OWL_KERNEL(owl_int_matmul) {
  OWL_SHARED U sums[kEach * kEach][kBlock];
  OWL_SHARED U left[kDeep][kTile];
  OWL_SHARED U right[kDeep][kTile + 1];  // padded, so that rows and columns fall into different banks
  const U* a = pointer<const U>(args, 2);
  const U* b = pointer<const U>(args, 3);
  const int64_t m = integer(args, 4), n = integer(args, 5), depth = integer(args, 6);
  const int64_t down = (m + kTile - 1) / kTile, tiles = down * ((n + kTile - 1) / kTile);
  const int64_t product = block / tiles, tile = block % tiles;
  const int64_t first_row = tile % down * kTile, first_column = tile / down * kTile;
  for (int64_t axis = 0, rest = product; axis < kAxes; ++axis) {
    const int slot = 11 + 3 * static_cast<int>(axis);
    a += rest % integer(args, slot) * integer(args, slot + 1);
    b += rest % integer(args, slot) * integer(args, slot + 2);
    rest /= integer(args, slot);
  }
  OWL_THREADS(t) {
    OWL_UNROLL for (int e = 0; e < kEach * kEach; ++e) sums[e][t] = 0;
  }
  for (int64_t p = 0; p < depth; p += kDeep) {
    OWL_SYNC;
    OWL_THREADS(t) {
      OWL_UNROLL for (int u = t; u < kTile * kDeep; u += kBlock) {
        const int64_t i = first_row + u % kTile, k = p + u / kTile;
        left[u / kTile][u % kTile] = i < m && k < depth ? a[i * integer(args, 7) + k * integer(args, 8)] : 0;
        const int64_t j = first_column + u / kDeep, l = p + u % kDeep;
        right[u % kDeep][u / kDeep] = j < n && l < depth ? b[l * integer(args, 9) + j * integer(args, 10)] : 0;
      }
    }
    OWL_SYNC;
    OWL_THREADS(t) {
      U sum[kEach * kEach];
      OWL_UNROLL for (int e = 0; e < kEach * kEach; ++e) sum[e] = sums[e][t];
      OWL_UNROLL for (int k = 0; k < kDeep; ++k) {
        U x[kEach], y[kEach];
        OWL_UNROLL for (int e = 0; e < kEach; ++e) {
          x[e] = left[k][e * kSide + t % kSide];
          y[e] = right[k][e * kSide + t / kSide];
        }
        OWL_UNROLL for (int e = 0; e < kEach * kEach; ++e) sum[e] += x[e % kEach] * y[e / kEach];
      }
      OWL_UNROLL for (int e = 0; e < kEach * kEach; ++e) sums[e][t] = sum[e];
    }
  }
  OWL_THREADS(t) {
    OWL_UNROLL for (int e = 0; e < kEach * kEach; ++e) {
      const int64_t i = first_row + e % kEach * kSide + t % kSide, j = first_column + e / kEach * kSide + t / kSide;
      if (i < m && j < n) store(args, static_cast<Index>((product * n + j) * m + i), static_cast<R>(sums[e][t]));
    }
  }
}
