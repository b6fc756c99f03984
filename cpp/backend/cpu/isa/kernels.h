// What the files of this folder export. Each is compiled once per instruction set, with OWL_ISA naming it; the tables
// are plain functions of pointers, so nothing compiled for a newer instruction set is reachable on an older processor.
#pragma once

#include <cstdint>

#include "base/env.h"

namespace owl::cpu {

inline constexpr int kTypes = 4;  // DType's values

// The interpreter hands out tiles in multiples of this many elements; vectors of every instruction set divide it.
inline constexpr std::int64_t kBlock = 16;

struct TileTable {
  using Fn = void (*)(void* dst, const void* a, const void* b, const void* c, std::int64_t n);
  const Fn (*functions)[kTypes];  // by code and type of the operands; null where the operation lacks the type
  const Fn (*casts)[kTypes];      // by source and target type
  // One pass for two operations over whole blocks: second(first(a, b), c), or second(c, first(a, b)) where `swapped`.
  // Same bits as one after the other. Null where there is none: only arithmetic of floats pays for the code.
  Fn (*pair)(int first, int second, bool swapped, int type);
  void (*fill)(void* dst, const void* value, std::int64_t item, std::int64_t n);  // items of 1, 4 or 8 bytes
  // Whether any of n floats (item 4) or doubles (item 8) is NaN or infinite.
  bool (*any_nonfinite)(const void* x, std::int64_t item, std::int64_t n);
  // dst[i + j * dst_stride] = src[j + i * src_stride] for 4-byte elements, i < rows, j < columns.
  void (*transpose4)(std::uint32_t* dst, std::int64_t dst_stride, const std::uint32_t* src, std::int64_t src_stride,
                     std::int64_t rows, std::int64_t columns);
};

// How one reduction folds elements of one type. Accumulators are arrays of `size` bytes each. All orders of summation
// are fixed: bits depend on the number of elements alone.
struct Fold {
  std::int64_t size;
  void (*init)(void* acc, std::int64_t n);
  // acc[0] takes in n consecutive elements.
  void (*row)(void* acc, const void* x, std::int64_t n);
  // acc[i] takes in x[i + r * stride] for all r < rows; i < n.
  void (*columns)(void* acc, const void* x, std::int64_t stride, std::int64_t rows, std::int64_t n);
  void (*combine)(void* acc, const void* other, std::int64_t n);
  // out[i] from acc[i], which has taken in `count` elements.
  void (*finish)(void* out, const void* acc, std::int64_t n, double count);
};

// The place of the first largest (smallest) element; NaN is larger (smaller) than anything.
struct ArgFold {
  std::int64_t size;  // of an element
  // The place among n > 0 consecutive elements.
  std::int64_t (*row)(const void* x, std::int64_t n);
  // out[i]: the place along r of x[i + r * stride]; n <= kArgColumns.
  void (*columns)(std::int32_t* out, const void* x, std::int64_t stride, std::int64_t rows, std::int64_t n);
  // Whether b is to be preferred to a, which came first.
  bool (*better)(const void* a, const void* b);
};
inline constexpr std::int64_t kArgColumns = 512;

enum ReduceKind { kSum, kMean, kMax, kMin, kCountZero, kReduceKinds };
struct ReduceTable {
  Fold folds[kReduceKinds][kTypes];
  ArgFold arg_folds[2][kTypes];  // largest, smallest
};

struct RandomSpec {
  std::uint64_t seed, call;
  double a, b;  // low, high; mu, sigma; probability
};
// `begin` is a multiple of 4: where in the random array these n numbers stand.
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

// For the processor this runs on.
// What this processor has, within OWL_ISA.
Isa isa();
const TileTable& best_tile_table();
const ReduceTable& best_reduce_table();
const RandomTable& best_random_table();

}  // namespace owl::cpu
