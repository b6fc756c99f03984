// Precedes every kernel's text. NVRTC compiles the same text for a GPU and, in tests, a host compiler with OWL_HOST
// defined; there one call of a kernel's function is one block.
//
// How a kernel is written:
//   * OWL_KERNEL(name) { ... } is its head; its only argument is `args`, whose slots it reads by pointer<T>(args, k),
//     integer(args, k) and number(args, k). Slot 0 is operand 0, slot 1 the result (see backend/cuda/emit.h).
//   * OWL_THREADS(t) { ... } runs once for each thread t of the block. One such part passes data to the next only in
//     OWL_SHARED memory, with OWL_SYNC between them.
//   * load(args, i) gives element i of operand 0, store(args, i, v) takes element i of the result, both in memory
//     order. They may include fused elementwise operations, so each element must be stored once.
//   * `block` is the number of this block, `blocks` their count, kBlock the threads of each.
#ifdef OWL_HOST

#include <cstdint>

#define OWL_DEVICE [[gnu::always_inline, maybe_unused]] static inline
#define OWL_KERNEL(NAME)                                                                              \
  static void NAME##_block(const Arguments& args, Index block, Index blocks);                         \
  extern "C" const unsigned NAME##_argument_bytes;                                                    \
  const unsigned NAME##_argument_bytes = sizeof(Arguments);                                           \
  extern "C" void NAME(const void* args, long long block, long long blocks) {                         \
    NAME##_block(*static_cast<const Arguments*>(args), static_cast<Index>(block), static_cast<Index>(blocks)); \
  }                                                                                                   \
  static void NAME##_block(const Arguments& args, [[maybe_unused]] const Index block,                 \
                           [[maybe_unused]] const Index blocks)
#define OWL_THREADS(T) for (int T = 0; T < kBlock; ++T)
#define OWL_SHARED
#define OWL_UNROLL
#define OWL_SYNC

#else

namespace std {
using int8_t = signed char;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned;
using int64_t = long long;
using uint64_t = unsigned long long;
}  // namespace std
#define INT32_MIN (-2147483647 - 1)
#define INT32_MAX 2147483647
#define INT64_MAX 9223372036854775807ll
#define INT64_MIN (-INT64_MAX - 1)

#define OWL_DEVICE [[maybe_unused]] static __device__ __forceinline__
#define OWL_MATH [[maybe_unused]] __device__ __forceinline__
#define OWL_EVAL template <class T> static __device__ __forceinline__
#define OWL_KERNEL(NAME)                                                              \
  OWL_DEVICE void NAME##_block(const Arguments& args, const Index block, const Index blocks); \
  extern "C" __global__ void __launch_bounds__(256) NAME(const __grid_constant__ Arguments args) { \
    NAME##_block(args, blockIdx.x, gridDim.x);                                        \
  }                                                                                   \
  OWL_DEVICE void NAME##_block(const Arguments& args, const Index block, const Index blocks)
#define OWL_THREADS(T) for (int T = threadIdx.x, once = 1; once; once = 0)
#define OWL_SHARED __shared__
#define OWL_UNROLL _Pragma("unroll")
#define OWL_SYNC __syncthreads()

#define __builtin_inff() __builtin_bit_cast(float, 0x7f800000)
#define __builtin_inf() __builtin_bit_cast(double, 0x7ff0000000000000ll)
#define __builtin_nanf(TEXT) __builtin_bit_cast(float, 0x7fc00000)
#define __builtin_fabs ::fabs
#define __builtin_fmaf ::fmaf
#define __builtin_fma ::fma
#define __builtin_sqrtf ::sqrtf
#define __builtin_sqrt ::sqrt
#define __builtin_floorf ::floorf
#define __builtin_floor ::floor
#define __builtin_ceilf ::ceilf
#define __builtin_ceil ::ceil
#define __builtin_rintf ::rintf
#define __builtin_rint ::rint
#define __builtin_truncf ::truncf
#define __builtin_trunc ::trunc
#define __builtin_fmodf ::fmodf
#define __builtin_fmod ::fmod
#define __builtin_exp ::exp
#define __builtin_exp2 ::exp2
#define __builtin_expm1 ::expm1
#define __builtin_log ::log
#define __builtin_log1p ::log1p
#define __builtin_log2 ::log2
#define __builtin_log10 ::log10
#define __builtin_tanh ::tanh
#define __builtin_sinh ::sinh
#define __builtin_cosh ::cosh
#define __builtin_sin ::sin
#define __builtin_cos ::cos
#define __builtin_tan ::tan
#define __builtin_asin ::asin
#define __builtin_acos ::acos
#define __builtin_atan ::atan
#define __builtin_atan2 ::atan2
#define __builtin_erf ::erf
#define __builtin_erfc ::erfc
#define __builtin_pow ::pow
#define __builtin_nextafter ::nextafter

#endif

using std::int32_t;
using std::int64_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

#define OWL_ON_DEVICE 1  // ops/elementwise.h omits the host's part
constexpr int kBlock = 256;

// Elements in which nothing is computed (ops/narrow.h).
enum class UInt8 : uint8_t {};
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <bool condition, class A, class B> struct Choose { using type = A; };
template <class A, class B> struct Choose<false, A, B> { using type = B; };

// OWL_SLOTS and Index (int32_t, or int64_t for large arrays) are defined before this text.
struct Arguments {
  uint64_t slot[OWL_SLOTS];
};
template <class T> OWL_DEVICE T* pointer(const Arguments& args, int k) { return reinterpret_cast<T*>(args.slot[k]); }
OWL_DEVICE int64_t integer(const Arguments& args, int k) { return static_cast<int64_t>(args.slot[k]); }
OWL_DEVICE double number(const Arguments& args, int k) { return __builtin_bit_cast(double, args.slot[k]); }

// Four elements that are read or written together.
template <class T> struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Pack {
  T v[4];
};
