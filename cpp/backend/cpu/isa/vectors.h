// Vectors of float64 of one register, and their fused multiplication and addition, of the instruction set that the file
// is compiled for.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

namespace owl::cpu::OWL_ISA {

#if defined(__AVX512F__)
typedef double Vector __attribute__((vector_size(64)));
#elif defined(__FMA__)
typedef double Vector __attribute__((vector_size(32)));
#else
typedef double Vector __attribute__((vector_size(16)));
#endif
typedef Vector UnalignedVector __attribute__((aligned(8), may_alias));
inline constexpr std::int64_t kLanes = sizeof(Vector) / sizeof(double);

inline Vector load(const double* from) { return *reinterpret_cast<const UnalignedVector*>(from); }
inline void store(double* to, Vector v) { *reinterpret_cast<UnalignedVector*>(to) = v; }
inline Vector all(double x) { return x - Vector{}; }

// a * b + c, rounded once where the instruction set can.
#if defined(__AVX512F__)
inline Vector multiply_add(Vector a, Vector b, Vector c) {
  return static_cast<Vector>(
      _mm512_fmadd_pd(static_cast<__m512d>(a), static_cast<__m512d>(b), static_cast<__m512d>(c)));
}
#elif defined(__FMA__)
inline Vector multiply_add(Vector a, Vector b, Vector c) {
  return static_cast<Vector>(
      _mm256_fmadd_pd(static_cast<__m256d>(a), static_cast<__m256d>(b), static_cast<__m256d>(c)));
}
#else
inline Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
#endif
#if defined(__FMA__)
inline double multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
inline double multiply_add(double a, double b, double c) { return a * b + c; }
#endif

}  // namespace owl::cpu::OWL_ISA
