// float64, int32 and int64 matrix products (oneDNN has none of them), and float32 ones with a small operand on the left.
// float64: panels of both operands are packed so that the innermost loop reads them in order and keeps its block of the
// result in registers.
#include <type_traits>

#include "backend/cpu/isa/nn_kernels.h"

#include "backend/cpu/isa/vectors.h"

namespace owl::cpu::OWL_ISA {
namespace {

#if defined(__AVX512F__)
constexpr std::int64_t kVectors = 3, kColumns = 8;
constexpr std::int64_t kSmallVectors = 2, kSmallColumns = 8;  // of float32
#elif defined(__FMA__)
constexpr std::int64_t kVectors = 2, kColumns = 6;
constexpr std::int64_t kSmallVectors = 2, kSmallColumns = 6;
#else
constexpr std::int64_t kVectors = 2, kColumns = 4;
constexpr std::int64_t kSmallVectors = 2, kSmallColumns = 4;
#endif
constexpr std::int64_t kRows = kVectors * kLanes;
static_assert(kGemmM % kRows == 0 && kGemmN % kColumns == 0);

inline std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Packs an n x k block into panels of `panel` rows: panel after panel, each k steps of `panel` adjacent elements;
// missing rows are 0 (their products are never stored).
void pack(double* to, const double* from, std::int64_t down, std::int64_t along, std::int64_t n, std::int64_t k,
          std::int64_t panel) {
  for (std::int64_t i = 0; i < n; i += panel) {
    const std::int64_t rows = smaller(panel, n - i);
    for (std::int64_t p = 0; p < k; ++p, to += panel) {
      const double* source = from + i * down + p * along;
      for (std::int64_t r = 0; r < rows; ++r) to[r] = source[r * down];
      for (std::int64_t r = rows; r < panel; ++r) to[r] = 0;
    }
  }
}

// c[m, n] (+)= one panel of a times one panel of b, m <= kRows, n <= kColumns.
void micro(std::int64_t k, const double* a, const double* b, double* c, std::int64_t c_right, std::int64_t m,
           std::int64_t n, bool accumulate) {
  Vector sum[kColumns][kVectors] = {};
  for (std::int64_t p = 0; p < k; ++p, a += kRows, b += kColumns) {
    Vector left[kVectors];  // a vector at a time: a copy of the array would go through memory in halves
#pragma GCC unroll 3
    for (std::int64_t v = 0; v < kVectors; ++v) left[v] = load(a + v * kLanes);
#pragma GCC unroll 8
    for (std::int64_t j = 0; j < kColumns; ++j) {
      const Vector right = all(b[j]);
#pragma GCC unroll 3
      for (std::int64_t v = 0; v < kVectors; ++v) sum[j][v] = multiply_add(left[v], right, sum[j][v]);
    }
  }
  double block[kColumns][kRows];
  __builtin_memcpy(block, sum, sizeof block);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < m; ++i)
      c[j * c_right + i] = accumulate ? c[j * c_right + i] + block[j][i] : block[j][i];
}

void gemm_f64(std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t a_down,
              std::int64_t a_right, const double* b, std::int64_t b_down, std::int64_t b_right, double* c,
              std::int64_t c_right, bool accumulate, double* scratch) {
  double* packed_a = scratch;
  double* packed_b = scratch + kGemmM * kGemmK;
  for (std::int64_t j = 0; j < n; j += kGemmN)
    for (std::int64_t p = 0; p < k; p += kGemmK) {
      const std::int64_t columns = smaller(kGemmN, n - j), depth = smaller(kGemmK, k - p);
      pack(packed_b, b + p * b_down + j * b_right, b_right, b_down, columns, depth, kColumns);
      for (std::int64_t i = 0; i < m; i += kGemmM) {
        const std::int64_t rows = smaller(kGemmM, m - i);
        pack(packed_a, a + i * a_down + p * a_right, a_down, a_right, rows, depth, kRows);
        for (std::int64_t jj = 0; jj < columns; jj += kColumns)
          for (std::int64_t ii = 0; ii < rows; ii += kRows)
            micro(depth, packed_a + ii * depth, packed_b + jj * depth, c + (j + jj) * c_right + i + ii, c_right,
                  smaller(kRows, rows - ii), smaller(kColumns, columns - jj), accumulate || p > 0);
      }
    }
}

// ---- float32 with a small left operand: each column of the result has the bits that it has alone

constexpr std::int64_t kFloats = 2 * kLanes;
typedef float FloatVector __attribute__((vector_size(sizeof(Vector))));
typedef FloatVector UnalignedFloatVector __attribute__((aligned(4), may_alias));

static_assert(kSmallVectors * kFloats <= kSmallLeftRows);

inline FloatVector multiply_add(FloatVector a, FloatVector b, FloatVector c) {
#if defined(__AVX512F__)
  return static_cast<FloatVector>(
      _mm512_fmadd_ps(static_cast<__m512>(a), static_cast<__m512>(b), static_cast<__m512>(c)));
#elif defined(__FMA__)
  return static_cast<FloatVector>(
      _mm256_fmadd_ps(static_cast<__m256>(a), static_cast<__m256>(b), static_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}

// `columns` columns of c[m, n] = a[m, k] * b[k, n], m <= vectors * kFloats: a is packed, k steps of so many elements.
template <std::int64_t vectors, std::int64_t columns>
void columns_of(std::int64_t m, std::int64_t k, const float* a, const float* b, std::int64_t b_down,
                std::int64_t b_right, float* c, std::int64_t c_right) {
  FloatVector sum[columns][vectors] = {};
  for (std::int64_t p = 0; p < k; ++p, a += vectors * kFloats, b += b_down) {
    FloatVector left[vectors];
#pragma GCC unroll 4
    for (std::int64_t v = 0; v < vectors; ++v) left[v] = *reinterpret_cast<const UnalignedFloatVector*>(a + v * kFloats);
#pragma GCC unroll 8
    for (std::int64_t j = 0; j < columns; ++j) {
      const FloatVector right = b[j * b_right] - FloatVector{};
#pragma GCC unroll 4
      for (std::int64_t v = 0; v < vectors; ++v) sum[j][v] = multiply_add(left[v], right, sum[j][v]);
    }
  }
  if (m == vectors * kFloats) {
#pragma GCC unroll 8
    for (std::int64_t j = 0; j < columns; ++j)
#pragma GCC unroll 4
      for (std::int64_t v = 0; v < vectors; ++v)
        *reinterpret_cast<UnalignedFloatVector*>(c + j * c_right + v * kFloats) = sum[j][v];
    return;
  }
  float block[columns][vectors * kFloats];
  __builtin_memcpy(block, sum, sizeof block);
  for (std::int64_t j = 0; j < columns; ++j)
    __builtin_memcpy(c + j * c_right, block[j], static_cast<std::size_t>(m) * sizeof(float));
}

template <std::int64_t vectors>
void panel_of(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_down, std::int64_t a_right,
              const float* b, std::int64_t b_down, std::int64_t b_right, float* c, std::int64_t c_right, float* packed) {
  constexpr auto rows = vectors * kFloats;
  for (std::int64_t p = 0; p < k; ++p)
    for (std::int64_t i = 0; i < rows; ++i) packed[p * rows + i] = i < m ? a[i * a_down + p * a_right] : 0.0f;
  std::int64_t j = 0;
  for (; j + kSmallColumns <= n; j += kSmallColumns)
    columns_of<vectors, kSmallColumns>(m, k, packed, b + j * b_right, b_down, b_right, c + j * c_right, c_right);
  for (; j < n; ++j) columns_of<vectors, 1>(m, k, packed, b + j * b_right, b_down, b_right, c + j * c_right, c_right);
}

void gemm_small_left(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_down,
                     std::int64_t a_right, const float* b, std::int64_t b_down, std::int64_t b_right, float* c,
                     std::int64_t c_right, float* scratch) {
  for (std::int64_t i = 0; i < m;) {
    const auto left = m - i;
    const auto vectors = left > kFloats ? kSmallVectors : 1;
    const auto rows = smaller(left, vectors * kFloats);
    (vectors == 1 ? panel_of<1> : panel_of<kSmallVectors>)(rows, n, k, a + i * a_down, a_down, a_right, b, b_down,
                                                           b_right, c + i, c_right, scratch);
    i += rows;
  }
}

// Computes in unsigned, whose overflow wraps around.
template <class T>
void gemm_int(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t a_down, std::int64_t a_right,
              const T* b, std::int64_t b_down, std::int64_t b_right, T* c, std::int64_t c_right, bool accumulate) {
  using U = std::make_unsigned_t<T>;
  for (std::int64_t j = 0; j < n; ++j) {
    auto* column = reinterpret_cast<U*>(c + j * c_right);
    if (!accumulate)
      for (std::int64_t i = 0; i < m; ++i) column[i] = 0;
    if (a_down == 1) {
      for (std::int64_t p = 0; p < k; ++p) {
        const auto* left = reinterpret_cast<const U*>(a + p * a_right);
        const auto right = static_cast<U>(b[p * b_down + j * b_right]);
#pragma GCC ivdep
        for (std::int64_t i = 0; i < m; ++i) column[i] += left[i] * right;
      }
    } else {
      for (std::int64_t i = 0; i < m; ++i) {
        U total = 0;
        for (std::int64_t p = 0; p < k; ++p)
          total += static_cast<U>(a[i * a_down + p * a_right]) * static_cast<U>(b[p * b_down + j * b_right]);
        column[i] += total;
      }
    }
  }
}

}  // namespace

void fill_gemm(NnTable& table) {
  table.gemm_f64 = gemm_f64;
  table.gemm_small_left = gemm_small_left;
  table.gemm_i32 = gemm_int<std::int32_t>;
  table.gemm_i64 = gemm_int<std::int64_t>;
}

}  // namespace owl::cpu::OWL_ISA
