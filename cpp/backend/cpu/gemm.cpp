#include "backend/cpu/gemm.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu {

namespace {

// A column-major operand as oneDNN's row-major product sees it: its transpose. The stride of an axis of length 1 is
// meaningless, so it must neither decide anything nor be passed on.
struct Operand {
  char transposed;
  std::int64_t leading;
};
Operand operand(const Matrix<const float>& x, std::int64_t rows, std::int64_t columns) {
  if (columns == 1) return x.down == 1 || rows == 1 ? Operand{'N', rows} : Operand{'T', x.down};
  if (rows == 1) return x.right == 1 ? Operand{'T', columns} : Operand{'N', x.right};
  if (x.down == 1) return {'N', x.right};
  return {'T', x.down};
}

// Columns a multiple of 1 KiB apart share a few sets of the caches (4 KiB: of the second level 1 in 64), so that a
// product that reads across them loses up to 60 % of its speed (benchmarks/products.py). Those are copied first, where
// the product is long enough to win by it.
constexpr std::int64_t kSharedSets = 1024 / sizeof(float), kLeastReuse = 32;

bool shares_sets(std::int64_t step, std::int64_t columns, std::int64_t reuse) {
  return step % kSharedSets == 0 && columns >= kLeastReuse && reuse >= kLeastReuse;
}

// `columns` of `rows` elements each. `reuse`: how often the product reads an element.
class Spread {
 public:
  Spread(std::int64_t rows, std::int64_t columns, const float* from, std::int64_t step, std::int64_t reuse)
      : rows_(rows), columns_(columns), from_(from), step_(step), copied_(shares_sets(step, columns, reuse)) {}

  std::size_t bytes() const {
    return copied_ ? ThreadScratch::padded(static_cast<std::size_t>(spread_step() * columns_) * sizeof(float)) : 0;
  }
  // The columns and the step between them.
  std::pair<const float*, std::int64_t> in(ThreadScratch& scratch) const {
    if (!copied_) return {from_, step_};
    auto* const to = reinterpret_cast<float*>(scratch.take(bytes()));
    for (std::int64_t i = 0; i < columns_; ++i) std::copy_n(from_ + i * step_, rows_, to + i * spread_step());
    return {to, spread_step()};
  }

 private:
  // An odd number of cache lines.
  std::int64_t spread_step() const { return ((rows_ + 15) / 16 | 1) * 16; }

  std::int64_t rows_, columns_;
  const float* from_;
  std::int64_t step_;
  bool copied_;
};

// A product of one row or one column, of a matrix and a vector. An axis of length 1 has no stride to rely on.
void gemv(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const double> a, Matrix<const double> b, double* c,
          std::int64_t c_right, bool accumulate) {
  const bool column = n == 1;
  const auto rows = column ? m : n, y_step = column ? 1 : c_right;
  const Matrix<const double> matrix = column ? a : Matrix<const double>{b.data, b.right, b.down};
  const Matrix<const double> vector = column ? b : Matrix<const double>{a.data, a.right, a.down};
  const NnTable& kernels = nn_table();
  if (rows > 1 && matrix.down == 1)
    return kernels.gemv_columns(c, y_step, matrix.data, matrix.right, vector.data, vector.down, rows, k, accumulate);
  const auto bytes = ThreadScratch::padded(static_cast<std::size_t>(k) * sizeof(double));
  ThreadScratch scratch(2 * bytes, ThreadScratch::For::kProduct);
  const auto contiguous = [&](const double* from, std::int64_t step) -> const double* {
    if (step == 1 || k == 1) return from;
    auto* const to = reinterpret_cast<double*>(scratch.take(bytes));
    for (std::int64_t i = 0; i < k; ++i) to[i] = from[i * step];
    return to;
  };
  const double* const x = contiguous(vector.data, vector.down);
  kernels.gemv_rows(c, y_step, rows == 1 ? contiguous(matrix.data, matrix.right) : matrix.data, matrix.down, x, rows, k,
                    accumulate);
}

NnTable make_table() {
  NnTable table{};
#if defined(__x86_64__)
  if (isa() == Isa::kAvx512) {
    avx512::fill_softmax(table), avx512::fill_pool(table), avx512::fill_pool_channels_last(table);
    avx512::fill_lrn(table), avx512::fill_norm(table), avx512::fill_gemm(table), avx512::fill_gemv(table);
    return table;
  }
  if (isa() == Isa::kAvx2) {
    avx2::fill_softmax(table), avx2::fill_pool(table), avx2::fill_pool_channels_last(table);
    avx2::fill_lrn(table), avx2::fill_norm(table), avx2::fill_gemm(table), avx2::fill_gemv(table);
    return table;
  }
#endif
  baseline::fill_softmax(table), baseline::fill_pool(table), baseline::fill_pool_channels_last(table);
  baseline::fill_lrn(table), baseline::fill_norm(table), baseline::fill_gemm(table), baseline::fill_gemv(table);
  return table;
}

}  // namespace

const NnTable& nn_table() {
  static const NnTable table = make_table();
  return table;
}

void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const float> a, Matrix<const float> b, float* c,
          std::int64_t c_right, bool accumulate) {
  use_one_openmp_thread();
  if (m == 0 || n == 0) return;
  if (k == 0) {
    if (!accumulate)
      for (std::int64_t j = 0; j < n; ++j) std::fill_n(c + j * c_right, m, 0.0f);
    return;
  }
  const bool across_a = a.down == 1 && m > 1, across_b = b.right == 1 && n > 1;
  const Spread spread_a(m, across_a ? k : 0, a.data, a.right, n), spread_b(n, across_b ? k : 0, b.data, b.down, m);
  ThreadScratch scratch(spread_a.bytes() + spread_b.bytes(), ThreadScratch::For::kProduct);
  if (across_a) std::tie(a.data, a.right) = spread_a.in(scratch);
  if (across_b) std::tie(b.data, b.down) = spread_b.in(scratch);
  const Operand left = operand(a, m, k), right = operand(b, k, n);
  // c^T = b^T a^T, all three row-major.
  const auto status = dnnl_sgemm(right.transposed, left.transposed, n, m, k, 1.0f, b.data, right.leading, a.data,
                                 left.leading, accumulate ? 1.0f : 0.0f, c, c_right);
  if (status == dnnl_out_of_memory) throw std::bad_alloc();
  if (status != dnnl_success) throw dnnl::error(status, "matrix product");
}

void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const double> a, Matrix<const double> b, double* c,
          std::int64_t c_right, bool accumulate) {
  if (k == 0 && !accumulate)
    for (std::int64_t j = 0; j < n; ++j) std::fill_n(c + j * c_right, m, 0.0);
  if (k == 0) return;
  if (m == 1 || n == 1) return gemv(m, n, k, a, b, c, c_right, accumulate);
  ThreadScratch scratch(kGemmScratch * sizeof(double), ThreadScratch::For::kProduct);
  nn_table().gemm_f64(m, n, k, a.data, a.down, a.right, b.data, b.down, b.right, c, c_right, accumulate,
                      reinterpret_cast<double*>(scratch.take(kGemmScratch * sizeof(double))));
}

void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const std::int32_t> a, Matrix<const std::int32_t> b,
          std::int32_t* c, std::int64_t c_right, bool accumulate) {
  nn_table().gemm_i32(m, n, k, a.data, a.down, a.right, b.data, b.down, b.right, c, c_right, accumulate);
}

void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const std::int64_t> a, Matrix<const std::int64_t> b,
          std::int64_t* c, std::int64_t c_right, bool accumulate) {
  nn_table().gemm_i64(m, n, k, a.data, a.down, a.right, b.data, b.down, b.right, c, c_right, accumulate);
}

}  // namespace owl::cpu
