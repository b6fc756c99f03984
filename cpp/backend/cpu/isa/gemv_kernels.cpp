// Products of a matrix and a vector, in float64: the matrix is read once, as fast as memory gives it.
#include "backend/cpu/isa/nn_kernels.h"
#include "backend/cpu/isa/vectors.h"

namespace owl::cpu::OWL_ISA {
namespace {

constexpr std::int64_t kBlock = 512;    // rows whose sums stay in the first-level cache
constexpr std::int64_t kDepth = 256;    // products that are added before they join the sum: rounding grows with both
constexpr std::int64_t kTogether = 4;   // columns that are read at once

// sums[i] += the products of `kTogether` columns, or of one.
template <int columns>
void add_columns(double* sums, const double* a, std::int64_t step, const double* x, std::int64_t x_step, std::int64_t rows) {
  double factor[columns];
  Vector factors[columns];
  for (int p = 0; p < columns; ++p) {
    factor[p] = x[p * x_step];
    factors[p] = all(factor[p]);
  }
  std::int64_t i = 0;
  for (; i + kLanes <= rows; i += kLanes) {
    Vector sum = load(sums + i);
#pragma GCC unroll 4
    for (int p = 0; p < columns; ++p) sum = multiply_add(load(a + p * step + i), factors[p], sum);
    store(sums + i, sum);
  }
  for (; i < rows; ++i)
    for (int p = 0; p < columns; ++p) sums[i] = multiply_add(a[p * step + i], factor[p], sums[i]);
}

void gemv_columns(double* y, std::int64_t y_step, const double* a, std::int64_t step, const double* x, std::int64_t x_step,
                  std::int64_t rows, std::int64_t columns, bool accumulate) {
  for (std::int64_t first = 0; first < rows; first += kBlock) {
    const std::int64_t block = rows - first < kBlock ? rows - first : kBlock;
    double sums[kBlock];
    for (std::int64_t begin = 0; begin < columns; begin += kDepth) {
      const std::int64_t end = columns - begin < kDepth ? columns : begin + kDepth;
      for (std::int64_t i = 0; i < block; ++i) sums[i] = 0;
      std::int64_t p = begin;
      for (; p + kTogether <= end; p += kTogether)
        add_columns<kTogether>(sums, a + p * step + first, step, x + p * x_step, x_step, block);
      for (; p < end; ++p) add_columns<1>(sums, a + p * step + first, step, x + p * x_step, x_step, block);
      const bool add = accumulate || begin > 0;
      double* const to = y + first * y_step;
      for (std::int64_t i = 0; i < block; ++i) to[i * y_step] = add ? to[i * y_step] + sums[i] : sums[i];
    }
  }
}

// The dot products of x and `together` rows, each in the same order whatever that number is.
template <int together>
void dot(double* totals, const double* a, std::int64_t step, const double* x, std::int64_t length) {
  constexpr int kSums = 4;
  Vector sums[together][kSums] = {};
  std::int64_t i = 0;
  for (; i + kSums * kLanes <= length; i += kSums * kLanes)
#pragma GCC unroll 4
    for (int s = 0; s < kSums; ++s) {
      const Vector right = load(x + i + s * kLanes);
#pragma GCC unroll 2
      for (int r = 0; r < together; ++r) sums[r][s] = multiply_add(load(a + r * step + i + s * kLanes), right, sums[r][s]);
    }
  for (int r = 0; r < together; ++r) {
    const Vector sum = (sums[r][0] + sums[r][1]) + (sums[r][2] + sums[r][3]);
    double total = 0;
    for (std::int64_t lane = 0; lane < kLanes; ++lane) total += sum[lane];
    for (std::int64_t j = i; j < length; ++j) total = multiply_add(a[r * step + j], x[j], total);
    totals[r] = total;
  }
}

void gemv_rows(double* y, std::int64_t y_step, const double* a, std::int64_t step, const double* x, std::int64_t rows,
               std::int64_t columns, bool accumulate) {
  const auto put = [=](std::int64_t row, double total) {
    y[row * y_step] = accumulate ? y[row * y_step] + total : total;
  };
  std::int64_t row = 0;
  for (; row + 2 <= rows; row += 2) {
    double totals[2];
    dot<2>(totals, a + row * step, step, x, columns);
    put(row, totals[0]);
    put(row + 1, totals[1]);
  }
  if (row == rows) return;
  double total;
  dot<1>(&total, a + row * step, step, x, columns);
  put(row, total);
}

}  // namespace

void fill_gemv(NnTable& table) {
  table.gemv_columns = gemv_columns;
  table.gemv_rows = gemv_rows;
}

}  // namespace owl::cpu::OWL_ISA
