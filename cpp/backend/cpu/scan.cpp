// Sums so far along an axis. The array is [inner, length, outer]: inner * outer lines of `length` elements, `inner`
// apart. A chunk takes neighbouring lines; long lines are cut into parts, whose totals are added before the sums of
// each part are written.
#include "ops/scan.h"

#include <algorithm>
#include <type_traits>

#include "backend/cpu/reduce.h"
#include "base/visit_dtype.h"

namespace owl::cpu {

namespace {

constexpr std::int64_t kPart = 1 << 15;    // elements of a part: some tens of microseconds
constexpr std::int64_t kColumns = 64;      // adjacent lines that are added side by side

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Integers wrap around; float32 is added in double.
template <class T> struct SumOf { using Type = std::make_unsigned_t<T>; };
template <> struct SumOf<float> { using Type = double; };
template <> struct SumOf<double> { using Type = double; };

struct Lines {
  std::int64_t inner, length, outer;
  bool backwards;
  std::int64_t width, blocks;           // adjacent lines of a block; blocks of an outer index
  std::int64_t per_part, parts;         // elements of a line's part

  Lines(const Shape& shape, const ScanParams& p) : inner(1), length(shape[p.axis]), backwards(p.backwards) {
    for (int axis = 0; axis < p.axis; ++axis) inner *= shape[axis];
    outer = shape.size() / (inner * length);
    width = std::min(inner, kColumns);
    blocks = ceil_div(inner, width);
    per_part = std::max<std::int64_t>(1, kPart / width);
    parts = ceil_div(length, per_part);
  }

  struct Place {
    std::int64_t line, width;         // the first line, and how many
    std::int64_t first, step, count;  // elements of the first line: first + k * step
    std::int64_t low;                 // the one of them with the lowest address
  };
  // Block `b` of all, its part p.
  Place place(std::int64_t b, std::int64_t p) const {
    const std::int64_t column = b % blocks * width, from = b / blocks * inner * length + column;
    const std::int64_t begin = p * per_part, count = std::min(per_part, length - begin);
    const std::int64_t at = from + (backwards ? length - 1 - begin : begin) * inner;
    const std::int64_t low = backwards ? at - (count - 1) * inner : at;
    return {b / blocks * inner + column, std::min(width, inner - column), at, backwards ? -inner : inner, count, low};
  }
};

template <class T, class S> void add_up(const T* x, const Lines::Place& at, S* sums) {
  x += at.first;
  for (std::int64_t k = 0; k < at.count; ++k, x += at.step)
    for (std::int64_t c = 0; c < at.width; ++c) sums[c] += static_cast<S>(x[c]);
}

template <class T, class S> void write_sums(const T* x, T* y, const Lines::Place& at, S* sums) {
  if (at.width == 1) {
    S sum = sums[0];
    for (std::int64_t k = 0, i = at.first; k < at.count; ++k, i += at.step)
      y[i] = static_cast<T>(sum += static_cast<S>(x[i]));
    return;
  }
  x += at.first;
  y += at.first;
  for (std::int64_t k = 0; k < at.count; ++k, x += at.step, y += at.step)
    for (std::int64_t c = 0; c < at.width; ++c) y[c] = static_cast<T>(sums[c] += static_cast<S>(x[c]));
}

template <class T> void launch_cumsum(const KernelArgs& args, Launch& launch) {
  using S = typename SumOf<T>::Type;
  const Lines lines(args.out.shape, static_cast<const ScanParams&>(*args.params));
  const std::int64_t all = lines.blocks * lines.outer, parts = lines.parts, count = lines.inner * lines.outer;
  const T* const x = args.in[0].as<const T>();
  T* const y = args.out.as<T>();
  S* totals = nullptr;  // [part][line]
  if (parts > 1) {
    totals = static_cast<S*>(launch.scratch(static_cast<std::size_t>(parts * count) * sizeof(S)));
    launch.stage(all * (parts - 1), [=](std::int64_t job) {
      const auto at = lines.place(job / (parts - 1), job % (parts - 1));
      S* const sums = totals + job % (parts - 1) * count + at.line;
      std::fill_n(sums, at.width, S{});
      add_up(x, at, sums);
    });
    launch.stage(1, [=](std::int64_t) {  // the totals of part p become the sums in front of part p + 1
      for (std::int64_t p = 1; p < parts - 1; ++p)
        for (std::int64_t i = 0; i < count; ++i) totals[p * count + i] += totals[(p - 1) * count + i];
    });
  }
  const std::int64_t of_job = std::min(lines.length, lines.per_part) * lines.width;
  const std::int64_t together = std::max<std::int64_t>(1, kPart / of_job);
  launch.stage(ceil_div(all * parts, together), [=, finished = args.finished](std::int64_t chunk) {
    for (std::int64_t job = chunk * together; job < std::min(all * parts, (chunk + 1) * together); ++job) {
      const std::int64_t p = job % parts;
      const auto at = lines.place(job / parts, p);
      S sums[kColumns] = {};
      if (p > 0) std::copy_n(totals + (p - 1) * count + at.line, at.width, sums);
      write_sums(x, y, at, sums);
      if (finished) finished({at.low, at.width, lines.inner, at.count});
    }
  });
}

}  // namespace

void cumsum(const KernelArgs& args, Launch& launch) {
  if (args.out.shape.size() == 0) return;
  visit_dtype<DType::kInt32, DType::kInt64, DType::kFloat32, DType::kFloat64>(
      "cumsum", args.out.dtype, [&]<class T>() { launch_cumsum<T>(args, launch); });
}

}  // namespace owl::cpu
