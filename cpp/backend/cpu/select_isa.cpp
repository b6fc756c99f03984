// Selects the kernels' copy for this processor.
#include <algorithm>

#include "backend/cpu/isa/kernels.h"

namespace owl::cpu {

namespace {

Isa detect() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
      __builtin_cpu_supports("f16c"))
    return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

#if defined(__x86_64__)
#define OWL_SELECT(TABLE)                        \
  static const auto& best = []() -> const auto& { \
    switch (isa()) {                             \
      case Isa::kAvx512: return avx512::TABLE(); \
      case Isa::kAvx2: return avx2::TABLE();     \
      default: return baseline::TABLE();         \
    }                                            \
  }();                                           \
  return best
#else
#define OWL_SELECT(TABLE) return baseline::TABLE()
#endif

}  // namespace

Isa isa() {
  static const Isa best = std::min(detect(), settings().isa);
  return best;
}

const TileTable& best_tile_table() { OWL_SELECT(tile_table); }
const ReduceTable& best_reduce_table() { OWL_SELECT(reduce_table); }
const RandomTable& best_random_table() { OWL_SELECT(random_table); }

}  // namespace owl::cpu
