// The matrix product, cut into tiles of the result by size alone; each is one single-threaded product.
#include <algorithm>
#include <cmath>

#include "backend/cpu/gemm.h"
#include "backend/cpu/nn.h"
#include "backend/cpu/strided_copy.h"
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
constexpr std::int64_t kLeastSlice = 512;   // of the slices of a product too small to be cut along m and n alone

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

// Of one of `products`: many of them are enough tiles.
Tiling tile(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t products) {
  Tiling t{m, n, k, 1};
  // Halves the longer side, because every tile packs its own rows of the left and columns of the right operand.
  const auto halve = [&] {
    auto& side = t.m > t.n ? t.m : t.n;
    side = half(side);
  };
  const double least = products < static_cast<std::int64_t>(kTiles) ? kLeastTileWork : kTileWork;
  const double most = std::clamp(t.work() / kTiles, std::clamp(kHalf * t.work(), least, kTileWork), kLargeTileWork);
  while (t.work() > most && std::max(t.m, t.n) > kSmallTile) halve();
  while (t.work() > kLongTileWork && std::max(t.m, t.n) > kTinyTile) halve();
  if (products == 1 && (t.work() > kLongTileWork || m * n <= kFewResults) && k >= 2 * kSliceLength) {
    t.slices = (k + kSliceLength - 1) / kSliceLength;
    t.k = kSliceLength;
  } else if (products == 1 && t.work() > most && k >= 2 * kLeastSlice) {
    const auto tiles = static_cast<double>(((m + t.m - 1) / t.m) * ((n + t.n - 1) / t.n));
    const auto wanted = static_cast<std::int64_t>(std::ceil(std::min(t.work() / most, kTiles / tiles)));
    const auto slices = std::clamp<std::int64_t>(wanted, 1, k / kLeastSlice);
    t.k = ((k + slices - 1) / slices + 63) / 64 * 64;
    t.slices = (k + t.k - 1) / t.k;
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

// A product with a small, narrow left operand, as of a classifier's last layer and many images: each column has the bits
// that it has alone, so that it may be in a strip. Of such products oneDNN's are not faster; of others they are.
constexpr std::int64_t kSmallLeft = 1 << 13, kNarrow = 16, kFewestRows = 4, kManyColumns = 64;

bool has_small_left(std::int64_t m, std::int64_t n, std::int64_t k) {
  return m * k <= kSmallLeft && std::min(m, k) <= kNarrow && m >= kFewestRows && n >= kManyColumns;
}

void multiply_small_left(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const float> a, Matrix<const float> b,
                         float* c, std::int64_t c_right) {
  const auto bytes = static_cast<std::size_t>(kSmallLeftRows * k) * sizeof(float);
  ThreadScratch scratch(bytes, ThreadScratch::For::kProduct);
  nn_table().gemm_small_left(m, n, k, a.data, a.down, a.right, b.data, b.down, b.right, c, c_right,
                             reinterpret_cast<float*>(scratch.take(bytes)));
}

template <class T> void multiply(bool small_left, std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const T> a,
                                 Matrix<const T> b, T* c, std::int64_t c_right) {
  if constexpr (std::is_same_v<T, float>)
    if (small_left) return multiply_small_left(m, n, k, a, b, c, c_right);
  gemm(m, n, k, a, b, c, c_right, false);
}

// The products along the axes behind the leading two, one after another. Those of one matrix on the left with
// matrices that lie side by side are one product.
struct Products {
  std::int64_t n, right;      // columns of the right operand and of the result, and the step between the former
  std::int64_t count = 1;
  Axes axes;                  // of the products, and the steps along them
  Strides a{}, b{};

  Products(const ArrayRef& x, const ArrayRef& y, const Shape& out) : n(out[1]), right(y.strides[1]) {
    std::int64_t lengths[kMaxAxes] = {1};
    int behind = 0;
    for (int i = 2; i < out.ndim(); ++i) {
      if (out[i] == 1) continue;
      const bool many_x = x.shape.at_or_one(i) != 1, many_y = y.shape.at_or_one(i) != 1;
      const auto at = static_cast<std::size_t>(i);
      if (behind == 0 && !many_x && joins(y, out[i], y.strides[at])) continue;
      a[static_cast<std::size_t>(behind)] = many_x ? x.strides[at] : 0;
      b[static_cast<std::size_t>(behind)] = many_y ? y.strides[at] : 0;
      lengths[behind++] = out[i];
      count *= out[i];
    }
    Strides* const both[] = {&a, &b};
    axes = merge_axes(Shape(std::span(lengths, static_cast<std::size_t>(std::max(1, behind)))), both, 2);
  }

  // Where product p begins in the operands.
  std::pair<std::int64_t, std::int64_t> at(std::int64_t p) const {
    std::int64_t of_a = 0, of_b = 0;
    for (int i = 0; i < axes.count; ++i) {
      const auto k = static_cast<std::size_t>(i);
      of_a += p % axes.lengths[i] * a[k];
      of_b += p % axes.lengths[i] * b[k];
      p /= axes.lengths[i];
    }
    return {of_a, of_b};
  }

 private:
  bool joins(const ArrayRef& y, std::int64_t length, std::int64_t step) {
    const auto k = y.shape[0], down = y.strides[0], by = n == 1 ? step : right;
    const bool fits = k == 1 || down == 1 ? by >= k : by == 1 && down >= n * length;
    if (step != n * by || !fits) return false;
    right = by;
    n *= length;
    return true;
  }
};

template <class T> void launch_matmul(const KernelArgs& args, Launch& launch) {
  const auto a = matrix<T>(args.in[0]);
  auto b = matrix<T>(args.in[1]);
  if (args.out.shape.size() == 0) return;
  const Products products(args.in[0], args.in[1], args.out.shape);
  b.right = products.right;
  const auto m = args.out.shape[0], n = products.n, k = args.in[0].shape[1];
  T* const c = args.out.as<T>();
  Tiling t = tile(m, n, k, products.count);
  const bool small_left = std::is_same_v<T, float> && products.count == 1 && has_small_left(m, n, k);
  if (std::is_integral_v<T> || small_left) t.slices = 1, t.k = k;
  const Cuts down(m, t.m, 16), right(n, t.n, 8);
  const auto tiles = down.count * right.count;
  T* const target = t.slices == 1 ? c
                                  : static_cast<T*>(launch.scratch(static_cast<std::size_t>(t.slices * m * n) *
                                                                   sizeof(T)));
  const auto run = [=, finished = args.finished](std::int64_t product, std::int64_t part) {
    const auto slice = part / tiles, row = part % down.count, column = part / down.count % right.count;
    const auto i = down.begin(row), j = right.begin(column), p = slice * t.k;
    const auto rows = down.size(row), columns = right.size(column), result = product * m * n + j * m + i;
    const auto [of_a, of_b] = products.at(product);
    multiply<T>(small_left, rows, columns, std::min(t.k, k - p),
                {a.data + of_a + i * a.down + p * a.right, a.down, a.right},
                {b.data + of_b + p * b.down + j * b.right, b.down, b.right}, target + slice * m * n + result, m);
    if (finished && t.slices == 1) finished({result, rows, m, columns});
  };
  const auto parts = tiles * t.slices;
  const auto each = parts > 1 ? 1 : std::clamp<std::int64_t>(static_cast<std::int64_t>(kLeastTileWork / t.work()), 1,
                                                             products.count);  // small products of a chunk
  launch.stage((products.count + each - 1) / each * parts, [=](std::int64_t chunk) {
    const auto first = chunk / parts * each;
    for (auto p = first; p < std::min(products.count, first + each); ++p) run(p, chunk % parts);
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
  visit_dtype<DType::kFloat32, DType::kFloat64, DType::kInt32, DType::kInt64>(
      "matmul", args.out.dtype, [&]<class T>() { launch_matmul<T>(args, launch); });
}

StripTraits matmul_strips(std::span<const ArrayRef> in, const ArrayRef& out, const Params*) {
  const bool one = out.dtype == DType::kFloat32 && out.shape.ndim() == 2;
  return {one && has_small_left(out.shape[0], out.shape[1], in[0].shape[1]) ? 1 : 0, 0b101};
}

StripKernel matmul_in_strips(const KernelArgs& whole, Launch&) {
  return {[a = matrix<float>(whole.in[0]), k = whole.in[0].shape[1]](const KernelArgs& strip, std::int64_t) {
    const auto m = strip.out.shape[0], n = strip.out.shape[1];
    multiply_small_left(m, n, k, a, matrix<float>(strip.in[1]), strip.out.as<float>(), m);
    if (strip.finished) strip.finished({0, m * n});
  }};
}

bool matmul_accepts(const Shape& shape, const Strides& strides, int) {
  if (shape.ndim() < 2) return false;
  // The stride of an axis of length 1 is never used.
  const bool one_row = shape[0] <= 1, one_column = shape[1] <= 1;
  if (one_row && one_column) return true;
  if (one_row) return strides[1] >= 1;
  if (one_column) return strides[0] >= 1;
  return (strides[0] == 1 && strides[1] >= shape[0]) || (strides[1] == 1 && strides[0] >= shape[1]);
}

}  // namespace owl::cpu
