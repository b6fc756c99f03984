// The kernels of the matrix product and the neural-network operations against plain loops in double, on one thread and
// on two: the bits must agree.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "backend/cpu/denormals.h"
#include "backend/cpu/isa/nn_kernels.h"
#include "backend/cpu/kernels.h"
#include "ops/nn.h"
#include "device/allocator.h"
#include "support.h"

namespace owl {
namespace {

using conv::Convolver, conv::Lrner, conv::Pooler, conv::PoolOp, conv::SoftOp;

// A host array of any type, with elements as doubles.
struct Array {
  Array(const Shape& s, DType t = DType::kFloat32)
      : shape(s), dtype(t), bytes(static_cast<std::size_t>(s.size()) * itemsize(t), 0xee) {}

  static Array random(const Shape& s, DType t, unsigned seed, bool small_integers = false) {
    Array a(s, t);
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> any(-1, 1);
    for (std::int64_t i = 0; i < s.size(); ++i) {
      const double v = any(generator);
      a.set(i, t == DType::kInt32 ? std::floor(v * 2e9) : small_integers ? std::floor(v * 3) : v);
    }
    return a;
  }
  template <class T> T* as() const { return reinterpret_cast<T*>(const_cast<std::uint8_t*>(bytes.data())); }
  double at(std::int64_t i) const {
    if (dtype == DType::kFloat32) return as<float>()[i];
    if (dtype == DType::kFloat64) return as<double>()[i];
    return as<std::int32_t>()[i];
  }
  void set(std::int64_t i, double v) {
    if (dtype == DType::kFloat32) as<float>()[i] = static_cast<float>(v);
    else if (dtype == DType::kFloat64) as<double>()[i] = v;
    else as<std::int32_t>()[i] = static_cast<std::int32_t>(v);
  }
  ArrayRef ref(bool channels_last = false) const {
    return {as<void>(), shape, channels_last ? channels_last_strides(shape) : shape.dense_strides(), dtype, true,
            channels_last};
  }
  // Converts images to channels last, or back.
  Array relaid(bool channels_last) const {
    Array other(shape, dtype);
    const Strides planes = shape.dense_strides(), last = channels_last_strides(shape);
    const Strides &from = channels_last ? planes : last, &to = channels_last ? last : planes;
    for (std::int64_t i = 0; i < shape.size(); ++i) {
      std::int64_t a = 0, b = 0, rest = i;
      for (int axis = 0; axis < 4; rest /= shape[axis++]) {
        a += rest % shape[axis] * from[static_cast<std::size_t>(axis)];
        b += rest % shape[axis] * to[static_cast<std::size_t>(axis)];
      }
      std::memcpy(&other.bytes[static_cast<std::size_t>(b) * itemsize(dtype)],
                  &bytes[static_cast<std::size_t>(a) * itemsize(dtype)], itemsize(dtype));
    }
    return other;
  }

  Shape shape;
  DType dtype;
  std::vector<std::uint8_t> bytes;
};

void execute(Launch& launch, int threads) {
  for (const auto& stage : launch.stages) {
    std::atomic<std::int64_t> next{0};
    const auto work = [&] {
      for (auto i = next++; i < stage.chunks; i = next++) stage.body(i);
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    work();
    for (auto& t : others) t.join();
  }
}

Array run(const char* name, const std::vector<ArrayRef>& in, const Shape& shape, DType dtype,
          const Params* params = nullptr, bool channels_last = false) {
  const OpRecord* op = find_op(name);
  Array results[2] = {{shape, dtype}, {shape, dtype}};
  for (const int threads : {1, 2}) {
    Launch launch;
    launch.device = &Engine::get().device(0);
    cpu::kernel_of(*op).run({in, results[threads - 1].ref(channels_last), params}, launch);
    execute(launch, threads);
    for (auto& [data, bytes] : launch.scratch_blocks) launch.device->allocator.free(data, bytes);
  }
  EXPECT_TRUE(results[0].bytes == results[1].bytes) << name << ": one and two threads differ";
  return results[0];
}

// For any of its operands and its result that the operation takes channels last, the bits are those of planes.
void check_layouts(const char* name, const std::vector<const Array*>& in, const Shape& shape, const Params* params,
                   const std::string& what) {
  std::vector<Shape> shapes;
  std::vector<ArrayRef> refs;
  for (const Array* a : in) shapes.push_back(a->shape), refs.push_back(a->ref());
  const Array want = run(name, refs, shape, DType::kFloat32, params);
  const unsigned knows = cpu::kernel_of(*find_op(name)).channels_last(shapes, shape, params);
  for (unsigned some = 1; some < 1u << (in.size() + 1); ++some) {
    if (some & ~knows) continue;
    std::vector<Array> relaid;
    for (std::size_t i = 0; i < in.size(); ++i) {
      const bool last = some >> (i + 1) & 1;
      relaid.push_back(last ? in[i]->relaid(true) : *in[i]);
      refs[i] = relaid.back().ref(last);
    }
    const Array got = run(name, refs, shape, DType::kFloat32, params, some & 1);
    EXPECT_TRUE((some & 1 ? got.relaid(false) : got).bytes == want.bytes) << name << " " << what << ", layouts " << some;
  }
}

// Sums of `terms` products of numbers up to 1.
void expect_near(const Array& got, const std::vector<double>& want, double terms, const std::string& what) {
  ASSERT_EQ(static_cast<std::size_t>(got.shape.size()), want.size());
  const double bound = (got.dtype == DType::kFloat32 ? 1e-6 : 1e-14) * (1 + std::sqrt(terms));
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double v = got.at(static_cast<std::int64_t>(i));
    if (std::isnan(want[i]) ? std::isnan(v) : std::abs(v - want[i]) <= bound * (1 + std::abs(want[i]))) continue;
    FAIL() << what << ": element " << i << " is " << v << ", expected " << want[i];
  }
}

// ---- matrix product

struct Product {
  std::int64_t m, n, k;
};

// x's elements with these strides.
struct Strided {
  Strided(const Array& x, const Strides& strides)
      : memory(Shape{strides[0] * x.shape[0] + strides[1] * x.shape[1]}, x.dtype), ref(memory.ref()) {
    for (std::int64_t j = 0; j < x.shape[1]; ++j)
      for (std::int64_t i = 0; i < x.shape[0]; ++i)
        memory.set(i * strides[0] + j * strides[1], x.at(j * x.shape[0] + i));
    ref = memory.ref();
    ref.shape = x.shape;
    ref.strides = strides;
    ref.dense = false;
  }
  Array memory;
  ArrayRef ref;
};

std::vector<double> in_double(const Array& x) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < x.shape.size(); ++i) values.push_back(x.at(i));
  return values;
}

// c += a b. The sanitizers would take most of the tests' time in here, and nothing is shared.
__attribute__((no_sanitize("thread", "address", "undefined"))) void add_product(const double* a, const double* b, double* c,
                                                                                std::int64_t m, std::int64_t k,
                                                                                std::int64_t n) {
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t p = 0; p < k; ++p)
      for (std::int64_t i = 0; i < m; ++i) c[j * m + i] += a[p * m + i] * b[j * k + p];
}

std::vector<double> product(const Array& a, const Array& b) {
  const auto m = a.shape[0], k = a.shape[1], n = b.shape[1];
  std::vector<double> c(static_cast<std::size_t>(m * n));
  add_product(in_double(a).data(), in_double(b).data(), c.data(), m, k, n);
  return c;
}

TEST(Kernels, MatrixProducts) {
  const Product products[] = {{1, 1, 1},     {3, 5, 7},     {256, 256, 784}, {10, 256, 256},
                              {256, 10, 10}, {1, 300, 200}, {300, 1, 200},   {200, 300, 1},
                              {301, 403, 257}, {64, 64, 70000}, {1, 1, 50000}, {97, 241, 513}};
  for (const auto& [m, n, k] : products)
    for (const DType type : {DType::kFloat32, DType::kFloat64}) {
      const Array a = Array::random({m, k}, type, 1), b = Array::random({k, n}, type, 2);
      const auto want = product(a, b);
      const auto what = std::to_string(m) + " x " + std::to_string(k) + " x " + std::to_string(n);
      expect_near(run("matmul", {a.ref(), b.ref()}, {m, n}, type), want, static_cast<double>(k), what);
      const Strided at(a, {k + 3, 1}), bt(b, {n, 1}), wide(b, {1, k + 5});
      if (k > 10000) continue;
      for (const auto& [left, right] : {std::pair(at.ref, b.ref()), std::pair(a.ref(), bt.ref),
                                        std::pair(at.ref, bt.ref), std::pair(a.ref(), wide.ref)}) {
        EXPECT_TRUE(cpu::kernel_of(*find_op("matmul")).accepts_strided(left.shape, left.strides, 0));
        EXPECT_TRUE(cpu::kernel_of(*find_op("matmul")).accepts_strided(right.shape, right.strides, 1));
        expect_near(run("matmul", {left, right}, {m, n}, type), want, static_cast<double>(k), what + ", strided");
      }
    }
}

TEST(Kernels, VectorsWithAnyStride) {
  for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kInt32}) {
    Array small_a({1, 40}, type), small_b({40, 1}, type);
    for (std::int64_t i = 0; i < 40; ++i) {
      small_a.set(i, static_cast<double>(i % 5));
      small_b.set(i, static_cast<double>(i % 7));
    }
    const Strided row(small_a, {1, 3}), column(small_b, {4, 1});
    EXPECT_TRUE(cpu::kernel_of(*find_op("matmul")).accepts_strided(row.ref.shape, row.ref.strides, 0));
    EXPECT_TRUE(cpu::kernel_of(*find_op("matmul")).accepts_strided(column.ref.shape, column.ref.strides, 1));
    EXPECT_EQ(run("matmul", {row.ref, column.ref}, {1, 1}, type).at(0), product(small_a, small_b)[0]);
    expect_near(run("matmul", {column.ref, row.ref}, {40, 40}, type), product(small_b, small_a), 1, "outer product");
  }
}

TEST(Kernels, Int32ProductsWrap) {
  const Array a = Array::random({37, 50}, DType::kInt32, 1), b = Array::random({50, 21}, DType::kInt32, 2);
  const Strided at(a, {50, 1});
  for (const auto& left : {a.ref(), at.ref}) {
    const Array c = run("matmul", {left, b.ref()}, {37, 21}, DType::kInt32);
    for (std::int64_t j = 0; j < 21; ++j)
      for (std::int64_t i = 0; i < 37; ++i) {
        std::uint32_t want = 0;
        for (std::int64_t p = 0; p < 50; ++p)
          want += a.as<std::uint32_t>()[p * 37 + i] * b.as<std::uint32_t>()[j * 50 + p];
        ASSERT_EQ(c.as<std::uint32_t>()[j * 37 + i], want);
      }
  }
}

TEST(Kernels, ProductsOfNothingAndOfNaN) {
  for (const DType type : {DType::kFloat32, DType::kFloat64, DType::kInt32}) {
    const Array c = run("matmul", {Array({5, 0}, type).ref(), Array({0, 6}, type).ref()}, {5, 6}, type);
    for (std::int64_t i = 0; i < 30; ++i) EXPECT_EQ(c.at(i), 0);
    run("matmul", {Array({0, 3}, type).ref(), Array({3, 6}, type).ref()}, {0, 6}, type);
    if (type == DType::kInt32) continue;
    Array a = Array::random({60, 70}, type, 1), b = Array::random({70, 80}, type, 2);
    for (std::int64_t p = 0; p < 70; ++p) b.set(3 * 70 + p, 0);
    a.set(5 * 60 + 7, NAN);
    a.set(9 * 60 + 8, INFINITY);
    const Array d = run("matmul", {a.ref(), b.ref()}, {60, 80}, type);
    for (std::int64_t j = 0; j < 80; ++j) EXPECT_TRUE(std::isnan(d.at(j * 60 + 7)));
    EXPECT_TRUE(std::isnan(d.at(3 * 60 + 8)));
    EXPECT_TRUE(std::isinf(d.at(4 * 60 + 8)));
  }
}

// ---- folds ----------------------------------------------------------------------------------------------------------

std::vector<const cpu::ReduceTable*> reduce_tables() {
  std::vector<const cpu::ReduceTable*> tables = {&cpu::baseline::reduce_table()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) tables.push_back(&cpu::avx2::reduce_table());
#endif
  if (&cpu::best_reduce_table() != tables.back()) tables.push_back(&cpu::best_reduce_table());
  return tables;
}

// Numbers with ties, zeros of both signs and infinities; and NaNs, where `nans` says so.
template <class T> std::vector<T> numbers_to_fold(std::mt19937& random, std::int64_t n, bool nans) {
  std::vector<T> x(static_cast<std::size_t>(n));
  for (auto& v : x) {
    v = static_cast<T>(static_cast<int>(random() % 2000) - 1000) / T(8);
    if (random() % 16 == 0) v = random() % 2 ? T(0) : -T(0);
    if (random() % 512 == 0) v = static_cast<T>(random() % 2 ? INFINITY : -INFINITY);
    if (nans && random() % 64 == 0) v = static_cast<T>(random() % 2 ? NAN : -NAN);
  }
  return x;
}

template <class T> void check_folds(DType type) {
  std::mt19937 random(9);
  const auto t = static_cast<std::size_t>(type);
  for (const std::int64_t n : {1, 2, 10, 31, 32, 33, 49, 63, 64, 65, 127, 200, 1000, 4099})
    for (const bool nans : {false, true}) {
      const auto x = numbers_to_fold<T>(random, 7 * n, nans);
      for (int kind = 0; kind < cpu::kReduceKinds; ++kind) {
        std::vector<std::vector<char>> results;
        for (const auto* table : reduce_tables()) {
          const cpu::Fold& fold = table->folds[kind][t];
          std::vector<char> acc(static_cast<std::size_t>((1 + n) * fold.size));
          fold.init(acc.data(), 1 + n);
          fold.row(acc.data(), x.data(), n);
          fold.columns(acc.data() + fold.size, x.data(), n, 7, n);
          results.push_back(std::move(acc));
        }
        // Which of two NaNs a sum propagates is up to the compiler.
        if (nans && kind != cpu::kMax && kind != cpu::kMin && kind != cpu::kCountZero) continue;
        for (const auto& r : results) EXPECT_EQ(r, results[0]) << "fold " << kind << " of " << n << ", type " << t;
      }
      for (const bool largest : {true, false}) {
        const auto better = [largest](T a, T b) { return (largest ? b > a : b < a) || (b != b && a == a); };
        std::int64_t want = 0;
        for (std::int64_t i = 1; i < n; ++i)
          if (better(x[static_cast<std::size_t>(want)], x[static_cast<std::size_t>(i)])) want = i;
        for (const auto* table : reduce_tables()) {
          EXPECT_EQ(table->arg_folds[largest ? 0 : 1][t].row(x.data(), n), want) << n << " elements, type " << t;
          const cpu::Fold& fold = table->folds[largest ? cpu::kMax : cpu::kMin][t];
          T best;
          fold.init(&best, 1);
          fold.row(&best, x.data(), n);
          const T expected = x[static_cast<std::size_t>(want)];
          EXPECT_TRUE(best == expected || (best != best && expected != expected)) << n << " elements, type " << t;
        }
      }
    }
}

// Several short rows at once, and what is left of them one by one.
template <class T> void check_places_in_rows(DType type) {
  std::mt19937 random(10);
  for (const std::int64_t n : {1, 2, 7, 10, 31, 32, 40})
    for (const std::int64_t count : {1, 15, 16, 17, 50})
      for (const bool nans : {false, true}) {
        const auto x = numbers_to_fold<T>(random, n * count, nans);
        for (const auto* table : reduce_tables())
          for (const int smallest : {0, 1}) {
            const cpu::ArgFold& fold = table->arg_folds[smallest][static_cast<std::size_t>(type)];
            std::vector<std::int32_t> places(static_cast<std::size_t>(count));
            fold.rows(places.data(), x.data(), n, count);
            for (std::int64_t r = 0; r < count; ++r)
              EXPECT_EQ(places[static_cast<std::size_t>(r)], fold.row(x.data() + r * n, n)) << r << " of " << count;
          }
      }
}

TEST(Kernels, PlacesInRows) {
  check_places_in_rows<float>(DType::kFloat32);
  check_places_in_rows<double>(DType::kFloat64);
}

// The processor's conversions against those of ops/narrow.h, of which the baseline is made; NaNs and denormals too.
TEST(Kernels, HalvesAreConvertedAlikeOnEveryInstructionSet) {
  constexpr auto half = static_cast<int>(DType::kFloat16), wide = static_cast<int>(DType::kFloat32);
  const auto& base = cpu::baseline::tile_table();
  const auto& best = cpu::best_tile_table();
  std::vector<std::uint16_t> halves(65536), back(65536), other_back(65536);
  std::iota(halves.begin(), halves.end(), 0);
  std::vector<std::uint32_t> floats(65536), other(65536);
  for (const bool zero : {false, true}) {
    std::optional<DenormalsToZero> denormals_to_zero;
    if (zero) denormals_to_zero.emplace();
    base.casts[half][wide](floats.data(), halves.data(), nullptr, nullptr, 65536);
    best.casts[half][wide](other.data(), halves.data(), nullptr, nullptr, 65536);
    EXPECT_EQ(floats, other);
    std::mt19937 random(11);
    for (int round = 0; round < 32; ++round) {
      // Near halves, and any bits.
      for (auto& f : floats)
        f = round % 2 ? static_cast<std::uint32_t>(random())
                      : f + static_cast<std::uint32_t>((random() % 3 - 1) * 0x1000 + random() % 3 - 1);
      base.casts[wide][half](back.data(), floats.data(), nullptr, nullptr, 65536);
      best.casts[wide][half](other_back.data(), floats.data(), nullptr, nullptr, 65536);
      EXPECT_EQ(back, other_back);
    }
  }
}

TEST(Kernels, FoldsAreTheSameOnEveryInstructionSet) {
  check_folds<float>(DType::kFloat32);
  check_folds<double>(DType::kFloat64);
}

// The sums of a float's neighbours cancel: any that were rounded to float on the way would not.
TEST(Kernels, SumsOfRowsRunInDouble) {
  for (const std::int64_t n : {32, 49, 1000, 4099}) {
    std::vector<float> x(static_cast<std::size_t>(n), 1.0f);
    x[0] = 1e9f;
    x[static_cast<std::size_t>(n) - 1] = -1e9f;
    for (const auto* table : reduce_tables()) {
      const cpu::Fold& fold = table->folds[cpu::kSum][static_cast<std::size_t>(DType::kFloat32)];
      double acc = 0;
      fold.row(&acc, x.data(), n);
      EXPECT_EQ(acc, static_cast<double>(n - 2)) << n;
    }
  }
}

// ---- convolution

struct ConvCase {
  std::int64_t w, h, c, n, kw, kh, filters;
  Convolver convolver;
};

// Calls f(index in x, index in w, index in y) for every product.
template <class F> void for_each_product(const ConvGeometry& g, F f) {
  const auto inputs = g.channels / g.groups, outputs = g.filters / g.groups;
  for (std::int64_t n = 0; n < g.images; ++n)
    for (std::int64_t o = 0; o < g.filters; ++o)
      for (std::int64_t oy = 0; oy < g.out_height; ++oy)
        for (std::int64_t ox = 0; ox < g.out_width; ++ox)
          for (std::int64_t c = 0; c < inputs; ++c)
            for (std::int64_t ky = 0; ky < g.kernel_y; ++ky)
              for (std::int64_t kx = 0; kx < g.kernel_x; ++kx) {
                const auto iy = oy * g.stride_y - g.pad_y + ky * g.dilation_y;
                const auto ix = ox * g.stride_x - g.pad_x + kx * g.dilation_x;
                if (iy < 0 || iy >= g.height || ix < 0 || ix >= g.width) continue;
                const auto channel = o / outputs * inputs + c;
                f(static_cast<std::size_t>(((n * g.channels + channel) * g.height + iy) * g.width + ix),
                  static_cast<std::size_t>(((o * inputs + c) * g.kernel_y + ky) * g.kernel_x + kx),
                  static_cast<std::size_t>(((n * g.filters + o) * g.out_height + oy) * g.out_width + ox));
              }
}

void check_convolution(const ConvCase& k, DType type, const std::string& what) {
  const Shape x_shape{k.w, k.h, k.c, k.n}, w_shape{k.kw, k.kh, k.c / k.convolver.groups, k.filters};
  const auto g = conv_geometry("conv", k.convolver, x_shape, w_shape);
  const Shape y_shape{g.out_width, g.out_height, g.filters, g.images};
  const Array x = Array::random(x_shape, type, 1), w = Array::random(w_shape, type, 2),
              b = Array::random({k.filters}, type, 3), err = Array::random(y_shape, type, 4);
  std::vector<double> y(static_cast<std::size_t>(y_shape.size())), dx(static_cast<std::size_t>(x_shape.size())),
      dw(static_cast<std::size_t>(w_shape.size())), db(static_cast<std::size_t>(k.filters));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const auto filter = i / static_cast<std::size_t>(g.out_plane()) % static_cast<std::size_t>(k.filters);
    y[i] = b.at(static_cast<std::int64_t>(filter));
    db[filter] += err.at(static_cast<std::int64_t>(i));
  }
  const auto x_values = in_double(x), w_values = in_double(w), err_values = in_double(err);
  for_each_product(g, [&](std::size_t ix, std::size_t iw, std::size_t iy) {
    y[iy] += x_values[ix] * w_values[iw];
    dx[ix] += w_values[iw] * err_values[iy];
    dw[iw] += x_values[ix] * err_values[iy];
  });
  const ConvParams data(k.convolver, x_shape), weight(k.convolver, w_shape);
  const auto taps = static_cast<double>(g.taps()), back_taps = static_cast<double>(g.kernel_y * g.kernel_x * g.filters);
  const auto places = static_cast<double>(g.out_plane() * g.images);
  expect_near(run("conv", {x.ref(), w.ref(), b.ref()}, y_shape, type, &data), y, taps, what + ", forward");
  expect_near(run("conv_back_data", {err.ref(), w.ref()}, x_shape, type, &data), dx, back_taps,
              what + ", data");
  expect_near(run("conv_back_weight", {err.ref(), x.ref()}, w_shape, type, &weight), dw, places,
              what + ", weight");
  expect_near(run("conv_back_bias", {err.ref()}, {k.filters}, type), db, places, what + ", bias");
  if (type != DType::kFloat32) return;
  check_layouts("conv", {&x, &w, &b}, y_shape, &data, what);
  check_layouts("conv_back_data", {&err, &w}, x_shape, &data, what);
  check_layouts("conv_back_weight", {&err, &x}, w_shape, &weight, what);
  check_layouts("conv_back_bias", {&err}, {k.filters}, nullptr, what);
}

TEST(Kernels, Convolutions) {
  const ConvCase cases[] = {
      {28, 28, 1, 37, 5, 5, 16, {}},
      {12, 12, 16, 21, 5, 5, 32, {.pad_h = 2, .pad_w = 2}},
      {11, 7, 3, 3, 4, 3, 5, {.pad_h = 1, .pad_w = 2}},
      {9, 13, 6, 2, 3, 3, 10, {.pad_h = 2, .pad_w = 0, .stride_v = 2, .stride_h = 3}},
      {17, 15, 4, 2, 3, 3, 6, {.pad_h = 1, .pad_w = 1, .stride_v = 1, .stride_h = 2, .dilation_h = 2, .dilation_w = 3}},
      {10, 10, 8, 3, 3, 3, 12, {.pad_h = 1, .pad_w = 1, .groups = 4}},
      {10, 9, 16, 2, 3, 3, 16, {.pad_h = 1, .pad_w = 1, .groups = 16}},
      {8, 8, 20, 2, 1, 1, 33, {}},
      {5, 5, 2, 1, 5, 5, 3, {}},
      {1, 1, 1, 1, 1, 1, 1, {}},
      {30, 30, 64, 1, 5, 5, 72, {.pad_h = 2, .pad_w = 2}},  // long images: cut into blocks of channels
  };
  int i = 0;
  for (const auto& c : cases)
    for (const DType type : {DType::kFloat32, DType::kFloat64})
      check_convolution(c, type, "case " + std::to_string(i++ / 2) + ", " + std::string(name(type)));
}

TEST(Kernels, ConvolutionOfNoImages) {
  const ConvParams data(Convolver{}, {5, 5, 2, 0}), weight(Convolver{}, {3, 3, 2, 4});
  const Array x({5, 5, 2, 0}), w = Array::random({3, 3, 2, 4}, DType::kFloat32, 1), b(Shape{4}), err({3, 3, 4, 0});
  run("conv", {x.ref(), w.ref(), b.ref()}, {3, 3, 4, 0}, DType::kFloat32, &data);
  run("conv_back_data", {err.ref(), w.ref()}, {5, 5, 2, 0}, DType::kFloat32, &data);
  const Array dw = run("conv_back_weight", {err.ref(), x.ref()}, {3, 3, 2, 4}, DType::kFloat32, &weight);
  for (std::int64_t i = 0; i < dw.shape.size(); ++i) EXPECT_EQ(dw.at(i), 0);
  const Array db = run("conv_back_bias", {err.ref()}, {4}, DType::kFloat32);
  for (std::int64_t i = 0; i < 4; ++i) EXPECT_EQ(db.at(i), 0);
}

// ---- pooling

struct Windows {
  std::int64_t begin_y, end_y, begin_x, end_x, padded;
};
Windows window(const PoolGeometry& g, std::int64_t oy, std::int64_t ox) {
  const auto y = oy * g.stride_y - g.pad_y, x = ox * g.stride_x - g.pad_x;
  const auto padded_y = std::min(y + g.window_y, g.height + g.pad_y);
  const auto padded_x = std::min(x + g.window_x, g.width + g.pad_x);
  return {std::max<std::int64_t>(y, 0), std::min(padded_y, g.height), std::max<std::int64_t>(x, 0),
          std::min(padded_x, g.width), (padded_y - y) * (padded_x - x)};
}

void check_pooling(const Pooler& pooler, const Shape& shape, DType type, const std::string& what) {
  const auto g = pool_geometry(pooler, shape);
  const Shape y_shape{g.out_width, g.out_height, shape[2], shape[3]};
  const Array x = Array::random(shape, type, 1, true), err = Array::random(y_shape, type, 2);
  std::vector<double> y(static_cast<std::size_t>(y_shape.size())), dx(static_cast<std::size_t>(shape.size()));
  const bool max = pooler.op == PoolOp::kMax;
  for (std::int64_t i = 0; i < y_shape.size(); ++i) {
    const auto plane = i / (g.out_width * g.out_height) * g.width * g.height;
    const auto w = window(g, i / g.out_width % g.out_height, i % g.out_width);
    auto place = plane + w.begin_y * g.width + w.begin_x;
    for (auto iy = w.begin_y; iy < w.end_y; ++iy)
      for (auto ix = w.begin_x; ix < w.end_x; ++ix) {
        const auto at = plane + iy * g.width + ix;
        const auto share = 1.0 / static_cast<double>(w.padded);
        if (x.at(at) > x.at(place)) place = at;
        if (max) continue;
        y[static_cast<std::size_t>(i)] += x.at(at) * share;
        dx[static_cast<std::size_t>(at)] += err.at(i) * share;
      }
    if (max) y[static_cast<std::size_t>(i)] = x.at(place), dx[static_cast<std::size_t>(place)] += err.at(i);
  }
  const PoolParams params(pooler, shape);
  expect_near(run("pool", {x.ref()}, y_shape, type, &params), y, 9, what);
  const auto in = max ? std::vector{err.ref(), x.ref()} : std::vector{err.ref()};
  expect_near(run("pool_back", in, shape, type, &params), dx, 9, what + ", back");
  if (type != DType::kFloat32) return;
  check_layouts("pool", {&x}, y_shape, &params, what);
  check_layouts("pool_back", max ? std::vector{&err, &x} : std::vector{&err}, shape, &params, what);
}

TEST(Kernels, Pooling) {
  const Pooler poolers[] = {{2, 2, 2, 2}, {3, 3, 3, 3}, {3, 3, 2, 2}, {2, 3, 1, 2}, {3, 3, 2, 2, 1, 1},
                            {4, 2, 3, 5, 2, 0}, {5, 4, 5, 4, 0, 3}, {1, 1, 3, 2}};
  const Shape shapes[] = {{24, 24, 16, 9}, {9, 8, 70, 2}, {12, 12, 5, 3}, {13, 7, 2, 3}, {40, 5, 1, 2}, {5, 5, 1, 1}};
  for (auto pooler : poolers)
    for (const auto& shape : shapes)
      for (const bool ceil_mode : {true, false})
        for (const PoolOp op : {PoolOp::kMax, PoolOp::kAverage})
          for (const DType type : {DType::kFloat32, DType::kFloat64}) {
            pooler.ceil_mode = ceil_mode;
            pooler.op = op;
            check_pooling(pooler, shape, type,
                          std::to_string(pooler.h) + " x " + std::to_string(pooler.w) + " windows of " + shape.str());
          }
}

TEST(Kernels, PoolingOfImagesNarrowerThanTheWindow) {
  const std::pair<Pooler, Shape> cases[] = {{{1, 2, 2, 2}, {1, 4, 9, 2}}, {{2, 2, 2, 2}, {1, 5, 3, 1}},
                                            {{3, 3, 2, 2}, {2, 5, 3, 1}}, {{3, 3, 3, 3}, {2, 4, 9, 2}}};
  for (auto [pooler, shape] : cases)
    for (const PoolOp op : {PoolOp::kMax, PoolOp::kAverage}) {
      pooler.op = op;
      check_pooling(pooler, shape, DType::kFloat32, std::to_string(pooler.w) + " wide windows of " + shape.str());
    }
}

TEST(Kernels, PoolingPartialWindowsByCaffesRule) {
  const auto lengths = [](const Pooler& p, std::int64_t n) { return pool_geometry(p, {n, n, 1, 1}).out_width; };
  EXPECT_EQ(lengths({2, 2, 2, 2}, 5), 3);
  EXPECT_EQ(lengths({.h = 2, .w = 2, .stride_v = 2, .stride_h = 2, .ceil_mode = false}, 5), 2);
  EXPECT_EQ(lengths({3, 3, 2, 2}, 6), 3);
  EXPECT_EQ(lengths({2, 2, 2, 2, 1, 1}, 3), 2);  // a third window would start in the padding after the image
  EXPECT_EQ(lengths({3, 3, 2, 2}, 2), 1);
  EXPECT_THROW(lengths({5, 5, 2, 2}, 2), ShapeError);
  EXPECT_THROW(lengths({2, 2, 2, 2, 2, 0}, 8), ShapeError);
}

TEST(Kernels, MaxPoolingTakesNaNs) {
  for (const std::int64_t window_size : {2, 3, 4}) {
    Array x = Array::random({12, 12, 1, 1}, DType::kFloat32, 1);
    x.set(14, NAN);
    const PoolParams params(Pooler{window_size, window_size, window_size, window_size}, x.shape);
    const auto out = 12 / window_size;
    const Array y = run("pool", {x.ref()}, {out, out, 1, 1}, DType::kFloat32, &params);
    EXPECT_TRUE(std::isnan(y.at(14 / 12 / window_size * out + 14 % 12 / window_size)));
    EXPECT_FALSE(std::isnan(y.at(out * out - 1)));
    Array err({out, out, 1, 1});
    for (std::int64_t i = 0; i < err.shape.size(); ++i) err.set(i, 1);
    EXPECT_EQ(run("pool_back", {err.ref(), x.ref()}, x.shape, DType::kFloat32, &params).at(14), 1);
    check_layouts("pool", {&x}, y.shape, &params, "with NaN");
    check_layouts("pool_back", {&err, &x}, x.shape, &params, "with NaN");
  }
}

// ---- softmax

void check_softmax(const Shape& shape, SoftOp op, DType type) {
  const Array x = Array::random(shape, type, 1), err = Array::random(shape, type, 2);
  const int last = shape.ndim() - 1;
  const bool instance = op == SoftOp::kInstance;
  const auto length = instance ? (last ? shape.size() / shape[last] : shape.size()) : shape[last - 1];
  const auto outer = instance ? (last ? shape[last] : 1) : shape[last], inner = shape.size() / length / outer;
  std::vector<double> y(static_cast<std::size_t>(shape.size())), ln = y, back = y, ln_back = y;
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t i = 0; i < inner; ++i) {
      const auto place = [&](std::int64_t j) { return (o * length + j) * inner + i; };
      double total = 0, mean = 0, errors = 0;
      for (std::int64_t j = 0; j < length; ++j) total += std::exp(x.at(place(j)));
      for (std::int64_t j = 0; j < length; ++j) mean += x.at(place(j)) * err.at(place(j));
      for (std::int64_t j = 0; j < length; ++j) errors += err.at(place(j));
      for (std::int64_t j = 0; j < length; ++j) {
        const auto at = static_cast<std::size_t>(place(j));
        y[at] = std::exp(x.at(place(j))) / total;
        ln[at] = x.at(place(j)) - std::log(total);
        back[at] = x.at(place(j)) * (err.at(place(j)) - mean);
        ln_back[at] = err.at(place(j)) - y[at] * errors;
      }
    }
  const SoftmaxParams params(op, shape.ndim());
  expect_near(run("softmax", {x.ref()}, shape, type, &params), y, 1, "softmax of " + shape.str());
  expect_near(run("log_softmax", {x.ref()}, shape, type, &params), ln, 4, "log_softmax of " + shape.str());
  expect_near(run("softmax_back", {err.ref(), x.ref()}, shape, type, &params), back, static_cast<double>(length),
              "softmax_back of " + shape.str());
  expect_near(run("log_softmax_back", {err.ref(), x.ref()}, shape, type, &params), ln_back, static_cast<double>(length),
              "log_softmax_back of " + shape.str());
}

TEST(Kernels, Softmax) {
  for (const DType type : {DType::kFloat32, DType::kFloat64}) {
    for (const Shape& shape : {Shape{10, 256}, Shape{1, 3}, Shape{33, 7}, Shape{5000, 3}, Shape{17}, Shape{3, 4, 5, 6},
                               Shape{7, 301}, Shape{16, 129}, Shape{255, 3}, Shape{256, 3}, Shape{257, 3},
                               Shape{1000, 3}})
      check_softmax(shape, SoftOp::kInstance, type);
    for (const Shape& shape : {Shape{10, 256}, Shape{70, 21, 3}, Shape{9, 9, 5, 4}, Shape{2, 40000, 2}, Shape{3, 1, 2}})
      check_softmax(shape, SoftOp::kChannel, type);
  }
}

TEST(Kernels, SoftmaxOfLargeValuesAndNaN) {
  const SoftmaxParams params(SoftOp::kInstance, 2);
  for (const DType type : {DType::kFloat32, DType::kFloat64}) {
    Array x({3, 3}, type);
    const double values[] = {1e4, 1e4, -1e4, NAN, 0, 1, -INFINITY, 0, 0};
    for (std::int64_t i = 0; i < 9; ++i) x.set(i, values[i]);
    expect_near(run("softmax", {x.ref()}, {3, 3}, type, &params), {0.5, 0.5, 0, NAN, NAN, NAN, 0, 0.5, 0.5}, 0,
                "softmax");
    const double l = std::log(2);
    const Array y = run("log_softmax", {x.ref()}, {3, 3}, type, &params);
    EXPECT_NEAR(y.at(0), -l, 1e-6);
    EXPECT_NEAR(y.at(2), -2e4 - l, 1e-2);
    EXPECT_TRUE(std::isnan(y.at(4)));
    EXPECT_EQ(y.at(6), -INFINITY);
  }
}

// A row's bits do not depend on other rows, on working in place, or on the address.
TEST(Kernels, SoftmaxRowsStandAlone) {
  const auto& kernels = cpu::nn_table().f32;
  for (const std::int64_t length : {1, 7, 10, 15, 16, 17, 100, 255, 256, 257, 1000, 1023, 1024, 1025, 5001})
    for (const bool logarithm : {false, true}) {
      const std::int64_t rows = 13, n = rows * length;
      std::mt19937 generator(static_cast<unsigned>(length));
      std::normal_distribution<float> normal(0, 30);
      std::vector<float> x(static_cast<std::size_t>(n)), y(x), alone(x.size() + 1);
      for (auto& v : x) v = normal(generator);
      x[static_cast<std::size_t>(length)] = -INFINITY;
      x[static_cast<std::size_t>(3 * length - 1)] = 100;
      kernels.softmax(y.data(), x.data(), rows, length, logarithm);
      const auto bytes = static_cast<std::size_t>(length) * sizeof(float);
      for (std::int64_t r = 0; r < rows; ++r) {
        std::memcpy(alone.data() + 1, x.data() + r * length, bytes);
        kernels.softmax(alone.data() + 1, alone.data() + 1, 1, length, logarithm);
        EXPECT_EQ(std::memcmp(alone.data() + 1, y.data() + r * length, bytes), 0) << length << " row " << r;
      }
    }
}

TEST(Kernels, SoftmaxOfLongRowsWithNaN) {
  const auto& kernels = cpu::nn_table().f32;
  for (const std::int64_t length : {300, 1001})
    for (std::int64_t place = 0; place < length; ++place) {
      std::vector<float> x(static_cast<std::size_t>(length), 1.0f), y(x);
      x[static_cast<std::size_t>(place)] = NAN;
      kernels.softmax(y.data(), x.data(), 1, length, false);
      EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float v) { return std::isnan(v); })) << place;
    }
}

// ---- local response normalisation

TEST(Kernels, Lrn) {
  for (const Lrner l : {Lrner{5, 1e-1, 0.75}, Lrner{3, 2, 0.5}, Lrner{1, 1, 1}, Lrner{7, 0.5, 0.6}})
    for (const Shape& shape : {Shape{5, 7, 9, 2}, Shape{40, 40, 3, 2}, Shape{1, 1, 600, 3}})
      for (const DType type : {DType::kFloat32, DType::kFloat64}) {
        const Array x = Array::random(shape, type, 1), err = Array::random(shape, type, 2);
        const auto plane = shape[0] * shape[1], channels = shape[2], half = l.local_size / 2;
        const auto n = static_cast<std::size_t>(shape.size());
        const double alpha = l.alpha / static_cast<double>(l.local_size);
        const auto window_of = [&](std::int64_t i, const std::function<void(std::int64_t)>& f) {
          const auto c = i / plane % channels;
          for (auto j = std::max<std::int64_t>(0, c - half); j <= std::min(channels - 1, c + half); ++j)
            f(i + (j - c) * plane);
        };
        std::vector<double> s(n, 1), y(n), dx(n);
        for (std::size_t i = 0; i < n; ++i) {
          window_of(static_cast<std::int64_t>(i), [&](std::int64_t j) { s[i] += alpha * x.at(j) * x.at(j); });
          y[i] = x.at(static_cast<std::int64_t>(i)) * std::pow(s[i], -l.beta);
        }
        for (std::size_t i = 0; i < n; ++i) {
          const auto at = static_cast<std::int64_t>(i);
          dx[i] = err.at(at) * std::pow(s[i], -l.beta);
          window_of(at, [&](std::int64_t j) {
            const auto k = static_cast<std::size_t>(j);
            dx[i] -= 2 * alpha * l.beta * x.at(at) * err.at(j) * y[k] / s[k];
          });
        }
        const LrnParams params(l);
        const Array got = run("lrn", {x.ref()}, shape, type, &params);
        expect_near(got, y, 4, "lrn of " + shape.str());
        expect_near(run("lrn_back", {err.ref(), x.ref(), got.ref()}, shape, type, &params), dx, 9,
                    "lrn_back of " + shape.str());
      }
}

// ---- errors while recording

template <class F> std::string message_of(F f) {
  try {
    f();
  } catch (const ShapeError& e) {
    return e.what();
  }
  return "no ShapeError";
}

TEST(Kernels, ShapeErrorsSayWhatIsWrong) {
  EXPECT_EQ(message_of([] { zeros({256, 784}) * zeros({256, 10}); }),
            "matrix product of [256, 784] and [256, 10]: inner sizes 784 and 256 differ");
  EXPECT_EQ(message_of([] { zeros({3}) * zeros({3, 2}); }),
            "matrix product of [3] and [3, 2]: both must have 2 axes (elewise.mult is the elementwise product)");
  const auto x = zeros({8, 8, 3, 2});
  const auto convolve = [&](const Shape& w, const Shape& b, Convolver c = {}) {
    return message_of([&] { c.ff(x, zeros(w), zeros(b)); });
  };
  EXPECT_EQ(convolve({3, 3, 4, 5}, {5}),
            "conv of [8, 8, 3, 2] with [3, 3, 4, 5]: the images have 3 channels, the weights are for 4");
  EXPECT_EQ(convolve({3, 9, 3, 5}, {5}), "conv of [8, 8, 3, 2] with [3, 9, 3, 5]: the kernel's height 9 is larger than "
                                         "the image's 8 with padding 0 on either side");
  EXPECT_EQ(convolve({3, 3, 3, 5}, {4}), "conv of [8, 8, 3, 2] with [3, 3, 3, 5]: the bias has shape [4], expected "
                                         "[5], one for each output channel");
  EXPECT_NE(convolve({3, 3, 3, 5}, {5}, {.pad_h = -1}).find("pad_h must be at least 0, got -1"), std::string::npos);
  EXPECT_NE(convolve({3, 3, 3, 5}, {5}, {.stride_h = 0}).find("stride_h must be at least 1"), std::string::npos);
  EXPECT_NE(convolve({3, 3, 3, 5}, {5}, {.groups = 2}).find("2 groups do not divide"), std::string::npos);
  EXPECT_NE(message_of([&] { Convolver{}.bp(zeros({5, 6, 5, 2}), x, zeros({3, 3, 3, 5})); }).find("[6, 6, 5, 2]"),
            std::string::npos);
  EXPECT_NE(message_of([&] { (Pooler{2, 2, 2, 2}).bp(x, x, x); }).find("[4, 4, 3, 2]"), std::string::npos);
}

}  // namespace
}  // namespace owl
