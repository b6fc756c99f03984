// The exports of this folder's files. Each file is compiled once per instruction set, which OWL_ISA names; the tables
// have plain functions of pointers, so that an older processor never reaches code for a newer instruction set.
#pragma once

#include <cstdint>

#include "base/env.h"
#include "owl/dtype.h"

namespace owl::cpu {

inline constexpr int kTypes = 8;  // DType's values; null in the tables are the narrow ones, in which nothing is computed

// The interpreter passes tiles in multiples of this many elements, a multiple of every instruction set's vector length.
inline constexpr std::int64_t kBlock = 16;

struct TileTable {
  using Fn = void (*)(void* dst, const void* a, const void* b, const void* c, std::int64_t n);
  const Fn (*functions)[kTypes];  // by code and type of the operands; null where the operation lacks the type
  const Fn (*casts)[kTypes];      // by source and target type
  // One pass for two operations over whole blocks: second(first(a, b), c), or second(c, first(a, b)) if `swapped`. Same
  // bits as one after the other. Null if there is none: only float arithmetic is worth the code.
  Fn (*pair)(int first, int second, bool swapped, int type);
  // Items of 1, 2, 4 or 8 bytes: dst[i] = *value, and dst[i] = src[i * step].
  void (*fill)(void* dst, const void* value, std::int64_t item, std::int64_t n);
  void (*strided)(void* dst, const void* src, std::int64_t step, std::int64_t item, std::int64_t n);
  // Whether any of n elements of a float type is a NaN or infinite.
  bool (*any_nonfinite)(const void* x, DType type, std::int64_t n);
  // dst[i + j * dst_stride] = src[j + i * src_stride] for 4-byte elements, i < rows, j < columns.
  void (*transpose4)(std::uint32_t* dst, std::int64_t dst_stride, const std::uint32_t* src, std::int64_t src_stride,
                     std::int64_t rows, std::int64_t columns);
};

// The fold of one reduction over elements of one type. Accumulators have `size` bytes each. All orders of summation are
// fixed: bits depend only on the number of elements.
struct Fold {
  std::int64_t size;
  void (*init)(void* acc, std::int64_t n);
  // Folds n consecutive elements into acc[0].
  void (*row)(void* acc, const void* x, std::int64_t n);
  // Folds x[i + r * stride] for all r < rows into acc[i]; i < n.
  void (*columns)(void* acc, const void* x, std::int64_t stride, std::int64_t rows, std::int64_t n);
  void (*combine)(void* acc, const void* other, std::int64_t n);
  // out[i] from acc[i], the fold of `count` elements.
  void (*finish)(void* out, const void* acc, std::int64_t n, double count);
};

// The index of the first largest (smallest) element; NaN is larger (smaller) than any number.
struct ArgFold {
  std::int64_t size;  // of an element
  // The index among n > 0 consecutive elements; those of `count` such rows, one after another.
  std::int64_t (*row)(const void* x, std::int64_t n);
  void (*rows)(std::int32_t* out, const void* x, std::int64_t n, std::int64_t count);
  // out[i]: the index r among x[i + r * stride]; n <= kArgColumns.
  void (*columns)(std::int32_t* out, const void* x, std::int64_t stride, std::int64_t rows, std::int64_t n);
  // Whether b replaces a, which came first.
  bool (*better)(const void* a, const void* b);
};
inline constexpr std::int64_t kArgColumns = 512;

enum ReduceKind { kSum, kMean, kProd, kMax, kMin, kCountZero, kReduceKinds };
struct ReduceTable {
  Fold folds[kReduceKinds][kTypes];
  ArgFold arg_folds[2][kTypes];  // largest, smallest
};

struct RandomSpec {
  std::uint64_t seed, call;
  double a, b;  // low, high; mu, sigma; probability
};
// `begin`: the index of the first of these n numbers in the random array; fastest where it is a multiple of 4.
struct RandomKernel {
  void (*float32)(float* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n);
  void (*float64)(double* dst, const RandomSpec& spec, std::int64_t begin, std::int64_t n);
};
struct RandomTable {
  RandomKernel uniform, normal, bernoulli;
};

#define OWL_DECLARE_ISA(ISA)          \
  namespace ISA {                     \
  const TileTable& tile_table();      \
  const ReduceTable& reduce_table();  \
  const RandomTable& random_table();  \
  }
OWL_DECLARE_ISA(baseline)
OWL_DECLARE_ISA(avx2)
OWL_DECLARE_ISA(avx512)
#undef OWL_DECLARE_ISA

// This processor's instruction set, at most OWL_ISA, and the tables for it.
Isa isa();
const TileTable& best_tile_table();
const ReduceTable& best_reduce_table();
const RandomTable& best_random_table();

}  // namespace owl::cpu
