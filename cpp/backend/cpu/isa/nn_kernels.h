// Single-threaded loops of the matrix product and the neural-network operations, compiled once per instruction set
// (see kernels.h). Plain functions of pointers.
#pragma once

#include <cstdint>

#include "backend/cpu/isa/kernels.h"

namespace owl {
struct PoolGeometry;
}

namespace owl::cpu {

// The packed float64 product works on blocks of this size.
inline constexpr std::int64_t kGemmM = 96, kGemmN = 240, kGemmK = 256;
inline constexpr std::int64_t kSmallLeftRows = 32;
inline constexpr std::int64_t kGemmScratch = (kGemmM + kGemmN) * kGemmK;  // elements

// Columns that the strided softmax processes at a time.
inline constexpr std::int64_t kSoftmaxColumns = 64;

template <class T> struct NnKernels {
  // Rows of `length` contiguous elements; y may be x, dx may be err.
  void (*softmax)(T* y, const T* x, std::int64_t rows, std::int64_t length, bool logarithm);
  void (*softmax_back)(T* dx, const T* err, const T* y, std::int64_t rows, std::int64_t length);
  void (*log_softmax_back)(T* dx, const T* err, const T* x, std::int64_t rows, std::int64_t length);  // dx may be x
  // `columns` <= kSoftmaxColumns adjacent columns, each of `length` elements, `stride` apart.
  void (*softmax_columns)(T* y, const T* x, std::int64_t columns, std::int64_t length, std::int64_t stride,
                          bool logarithm);
  void (*softmax_back_columns)(T* dx, const T* err, const T* y, std::int64_t columns, std::int64_t length,
                               std::int64_t stride);
  void (*log_softmax_back_columns)(T* dx, const T* err, const T* x, std::int64_t columns, std::int64_t length,
                                   std::int64_t stride);

  // Rows of `length` contiguous elements, each normalised (ops/norm.cpp); y may be x.
  void (*layer_norm)(T* y, const T* x, const T* weight, const T* bias, std::int64_t rows, std::int64_t length,
                     double eps);
  // Adds to dweight and dbias. dx may be null, or dweight and dbias.
  void (*layer_norm_back)(T* dx, T* dweight, T* dbias, const T* err, const T* x, const T* weight, std::int64_t rows,
                          std::int64_t length, double eps);

  // One plane.
  void (*pool_max)(T* y, const T* x, const PoolGeometry& g);
  void (*pool_max_back)(T* dx, const T* err, const T* x, const PoolGeometry& g);
  void (*pool_average)(T* y, const T* x, const PoolGeometry& g);
  void (*pool_average_back)(T* dx, const T* err, const PoolGeometry& g, double* rows);  // average_rows_kept(g), of width

  // `positions` adjacent elements of every channel; channels are `plane` apart. `half`: channels on either side.
  void (*lrn)(T* y, const T* x, std::int64_t positions, std::int64_t channels, std::int64_t plane, std::int64_t half,
              T alpha, T beta);
  // `scratch`: 2 * positions * channels elements.
  void (*lrn_back)(T* dx, const T* err, const T* x, const T* y, std::int64_t positions, std::int64_t channels,
                   std::int64_t plane, std::int64_t half, T alpha, T beta, T* scratch);

  // Folds of one accumulator, which differ in `finish`.
  Fold mean, variance;

  // The sum of n elements, in a fixed order.
  double (*sum)(const T* x, std::int64_t n);
  // dst[i] = sum over k < rows, in order, of src[i + k * stride].
  void (*sum_rows)(T* dst, const T* src, std::int64_t n, std::int64_t rows, std::int64_t stride);
};

// For float images with channels last, one image at a time. `row`: width * channels elements, `rows`:
// average_rows_kept(g) times as many.
struct ChannelsLastKernels {
  void (*pool_max)(float* y, const float* x, const PoolGeometry& g, std::int64_t channels, double* row);
  void (*pool_average)(float* y, const float* x, const PoolGeometry& g, std::int64_t channels, double* row);
  void (*pool_max_back)(float* dx, const float* err, const float* x, const PoolGeometry& g, std::int64_t channels);
  void (*pool_average_back)(float* dx, const float* err, const PoolGeometry& g, std::int64_t channels, double* rows);
};

struct NnTable {
  NnKernels<float> f32;
  NnKernels<double> f64;
  ChannelsLastKernels channels_last;
  // sums[c] = NnKernels::sum of channel c over n pixels, with channels last: pixels are `stride` apart.
  void (*sum_channels)(double* sums, const float* x, std::int64_t n, std::int64_t stride, std::int64_t channels);
  // c[m, n] (+)= a[m, k] * b[k, n], element (i, j) of a at i * a_down + j * a_right, of c at i + j * c_right.
  void (*gemm_f64)(std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t a_down,
                   std::int64_t a_right, const double* b, std::int64_t b_down, std::int64_t b_right, double* c,
                   std::int64_t c_right, bool accumulate, double* scratch);
  // c[m, n] = a[m, k] * b[k, n] with a small a: element by element the same for any part of the rows and columns.
  // `scratch`: kSmallLeftRows * k elements.
  void (*gemm_small_left)(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_down,
                          std::int64_t a_right, const float* b, std::int64_t b_down, std::int64_t b_right, float* c,
                          std::int64_t c_right, float* scratch);
  // y (+)= a * x: `rows` sums of `columns` products. Of the matrix either the columns are contiguous, `step` apart, or
  // the rows, and then x is too.
  void (*gemv_columns)(double* y, std::int64_t y_step, const double* a, std::int64_t step, const double* x,
                       std::int64_t x_step, std::int64_t rows, std::int64_t columns, bool accumulate);
  void (*gemv_rows)(double* y, std::int64_t y_step, const double* a, std::int64_t step, const double* x, std::int64_t rows,
                    std::int64_t columns, bool accumulate);
  void (*gemm_i32)(std::int64_t m, std::int64_t n, std::int64_t k, const std::int32_t* a, std::int64_t a_down,
                   std::int64_t a_right, const std::int32_t* b, std::int64_t b_down, std::int64_t b_right,
                   std::int32_t* c, std::int64_t c_right, bool accumulate);
  void (*gemm_i64)(std::int64_t m, std::int64_t n, std::int64_t k, const std::int64_t* a, std::int64_t a_down,
                   std::int64_t a_right, const std::int64_t* b, std::int64_t b_down, std::int64_t b_right,
                   std::int64_t* c, std::int64_t c_right, bool accumulate);

  template <class T> const NnKernels<T>& kernels() const {
    if constexpr (sizeof(T) == 4) return f32;
    else return f64;
  }
};

#define OWL_DECLARE_ISA(ISA)                          \
  namespace ISA {                                     \
  void fill_softmax(NnTable& table);                  \
  void fill_pool(NnTable& table);                     \
  void fill_pool_channels_last(NnTable& table);       \
  void fill_lrn(NnTable& table);                      \
  void fill_norm(NnTable& table);                     \
  void fill_gemm(NnTable& table);                     \
  void fill_gemv(NnTable& table);                     \
  }
OWL_DECLARE_ISA(baseline)
OWL_DECLARE_ISA(avx2)
OWL_DECLARE_ISA(avx512)
#undef OWL_DECLARE_ISA

// The largest number of rows of windows that cover one row of the image.
std::int64_t average_rows_kept(const PoolGeometry& g);

// For the processor this runs on.
const NnTable& nn_table();

}  // namespace owl::cpu
