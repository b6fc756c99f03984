// The matrix product, cut into tiles of the result by size alone; each is one single-threaded product.
#include <algorithm>

#include "backend/cpu/gemm.h"
#include "backend/cpu/nn.h"
#include "base/visit_dtype.h"

namespace owl::cpu {

namespace {

// In units of multiplications and additions. These cut a product, and so decide its bits: they are sizes, which no cost
// model may change (cost.h). A core does about 120 of them in a nanosecond (benchmarks/costs.py).
constexpr double kTileWork = 40e6, kLargeTileWork = 256e6;
constexpr double kLeastTileWork = 1.25e6;   // the least worth a second thread: smaller products still become two tiles
constexpr double kHalf = 0.6;               // work of each of two tiles, including the operand that both read
constexpr double kTiles = 12;               // number of tiles from which a large product's tiles grow
constexpr double kWorkPerElement = 20;      // the cost of reading an element from memory
constexpr std::int64_t kSmallTile = 192;    // below this size packing the operands takes a growing share of the time
constexpr std::int64_t kTinyTile = 64;
constexpr double kLongTileWork = 512e6;     // longer tiles are made smaller than kSmallTile and are cut along k
constexpr std::int64_t kSliceLength = 8192;
constexpr std::int64_t kFewResults = 16;    // up to this many, each is one dot product without blocks of k

struct Tiling {
  std::int64_t m, n;      // of a tile
  std::int64_t k;         // of a slice
  std::int64_t slices;    // partial products, added in order

  double work() const {
    return 2.0 * static_cast<double>(m * n) * static_cast<double>(k) +
           kWorkPerElement * (static_cast<double>((m + n) * k) + static_cast<double>(m * n));
  }
};

std::int64_t half(std::int64_t length) { return ((length + 1) / 2 + 15) / 16 * 16; }

Tiling tile(std::int64_t m, std::int64_t n, std::int64_t k) {
  Tiling t{m, n, k, 1};
  // Halves the longer side, because every tile packs its own rows of the left and columns of the right operand.
  const auto halve = [&] {
    auto& side = t.m > t.n ? t.m : t.n;
    side = half(side);
  };
  const double most = std::clamp(t.work() / kTiles, std::clamp(kHalf * t.work(), kLeastTileWork, kTileWork),
                                 kLargeTileWork);
  while (t.work() > most && std::max(t.m, t.n) > kSmallTile) halve();
  while (t.work() > kLongTileWork && std::max(t.m, t.n) > kTinyTile) halve();
  if ((t.work() > kLongTileWork || m * n <= kFewResults) && k >= 2 * kSliceLength) {
    t.slices = (k + kSliceLength - 1) / kSliceLength;
    t.k = kSliceLength;
  }
  return t;
}

// A side of the result, cut into equal tiles, as far as the vector length and the product's own blocks allow.
struct Cuts {
  std::int64_t length, count, unit;

  Cuts(std::int64_t length, std::int64_t tile, std::int64_t unit)
      : length(length), count((length + tile - 1) / tile), unit(unit) {}
  std::int64_t begin(std::int64_t i) const { return i == count ? length : i * length / count / unit * unit; }
  std::int64_t size(std::int64_t i) const { return begin(i + 1) - begin(i); }
};

template <class T> Matrix<const T> matrix(const ArrayRef& x) { return {x.as<const T>(), x.strides[0], x.strides[1]}; }

template <class T> void add_up(T* c, const T* partial, std::int64_t begin, std::int64_t end, const Tiling& t,
                               std::int64_t size) {
  for (auto i = begin; i < end; ++i) {
    double total = 0;
    for (std::int64_t s = 0; s < t.slices; ++s) total += static_cast<double>(partial[s * size + i]);
    c[i] = static_cast<T>(total);
  }
}

template <class T> void launch_matmul(const KernelArgs& args, Launch& launch) {
  const auto a = matrix<T>(args.in[0]), b = matrix<T>(args.in[1]);
  const auto m = args.out.shape[0], n = args.out.shape[1], k = args.in[0].shape[1];
  T* const c = args.out.as<T>();
  if (m == 0 || n == 0) return;
  Tiling t = tile(m, n, k);
  if (std::is_integral_v<T>) t.slices = 1, t.k = k;
  const Cuts down(m, t.m, 16), right(n, t.n, 8);
  const auto tiles = down.count * right.count;
  T* const target = t.slices == 1 ? c
                                  : static_cast<T*>(launch.scratch(static_cast<std::size_t>(t.slices * m * n) *
                                                                   sizeof(T)));
  launch.stage(tiles * t.slices, [=, finished = args.finished](std::int64_t chunk) {
    const auto slice = chunk / tiles, row = chunk % down.count, column = chunk / down.count % right.count;
    const auto i = down.begin(row), j = right.begin(column), p = slice * t.k;
    const auto rows = down.size(row), columns = right.size(column);
    gemm(rows, columns, std::min(t.k, k - p), {a.data + i * a.down + p * a.right, a.down, a.right},
         {b.data + p * b.down + j * b.right, b.down, b.right}, target + slice * m * n + j * m + i, m, false);
    if (finished && t.slices == 1) finished({j * m + i, rows, m, columns});
  });
  if (t.slices == 1) return;
  constexpr std::int64_t kStep = 1 << 14;
  launch.stage((m * n + kStep - 1) / kStep, [=, finished = args.finished](std::int64_t chunk) {
    const auto begin = chunk * kStep, end = std::min(m * n, begin + kStep);
    add_up(c, target, begin, end, t, m * n);
    if (finished) finished({begin, end - begin});
  });
}

}  // namespace

void matmul(const KernelArgs& args, Launch& launch) {
  visit_dtype<DType::kFloat32, DType::kFloat64, DType::kInt32>(
      "matmul", args.out.dtype, [&]<class T>() { launch_matmul<T>(args, launch); });
}

bool matmul_accepts(const Shape& shape, const Strides& strides, int) {
  if (shape.ndim() != 2) return false;
  // The stride of an axis of length 1 is never used.
  const bool one_row = shape[0] <= 1, one_column = shape[1] <= 1;
  if (one_row && one_column) return true;
  if (one_row) return strides[1] >= 1;
  if (one_column) return strides[0] >= 1;
  return (strides[0] == 1 && strides[1] >= shape[0]) || (strides[1] == 1 && strides[0] >= shape[1]);
}

}  // namespace owl::cpu
