// Single-threaded matrix products with any strides, used by matmul and the plain convolution.
#pragma once

#include <cstdint>

#include "backend/cpu/onednn.h"
#include "backend/cpu/isa/nn_kernels.h"

namespace owl::cpu {

// A matrix in memory: element (i, j) is data[i * down + j * right].
template <class T> struct Matrix {
  T* data;
  std::int64_t down, right;
};

// c[m, n] (+)= a[m, k] * b[k, n]; c's first axis is contiguous. For float32, a and b must be contiguous along one axis,
// and the other stride at least that axis's length.
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const float> a, Matrix<const float> b, float* c,
          std::int64_t c_right, bool accumulate);
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const double> a, Matrix<const double> b, double* c,
          std::int64_t c_right, bool accumulate);
// Wraps around, like every int32 operation.
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const std::int32_t> a, Matrix<const std::int32_t> b,
          std::int32_t* c, std::int64_t c_right, bool accumulate);
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix<const std::int64_t> a, Matrix<const std::int64_t> b,
          std::int64_t* c, std::int64_t c_right, bool accumulate);

}  // namespace owl::cpu
