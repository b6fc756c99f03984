#include "backend/cpu/gemm.h"

#include <algorithm>

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

NnTable make_table() {
  NnTable table{};
#if defined(__x86_64__)
  if (isa() == Isa::kAvx512) {
    avx512::fill_softmax(table), avx512::fill_pool(table), avx512::fill_pool_channels_last(table);
    avx512::fill_lrn(table), avx512::fill_norm(table), avx512::fill_gemm(table);
    return table;
  }
  if (isa() == Isa::kAvx2) {
    avx2::fill_softmax(table), avx2::fill_pool(table), avx2::fill_pool_channels_last(table);
    avx2::fill_lrn(table), avx2::fill_norm(table), avx2::fill_gemm(table);
    return table;
  }
#endif
  baseline::fill_softmax(table), baseline::fill_pool(table), baseline::fill_pool_channels_last(table);
  baseline::fill_lrn(table), baseline::fill_norm(table), baseline::fill_gemm(table);
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
