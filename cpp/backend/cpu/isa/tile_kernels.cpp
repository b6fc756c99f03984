// The loops of the elementwise interpreter: one per operation and element type.
#include <utility>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "backend/cpu/isa/kernels.h"
#include "ops/elementwise.h"

namespace owl::cpu::OWL_ISA {
namespace {

using elementwise_ops::Bool;
using Fn = TileTable::Fn;

template <int type> struct element;
template <> struct element<0> { using type = Bool; };
template <> struct element<1> { using type = UInt8; };
template <> struct element<2> { using type = std::int32_t; };
template <> struct element<3> { using type = std::int64_t; };
template <> struct element<4> { using type = Float16; };
template <> struct element<5> { using type = BFloat16; };
template <> struct element<6> { using type = float; };
template <> struct element<7> { using type = double; };

constexpr bool takes(TypeRule rule, int type) {
  if (is_narrow(static_cast<DType>(type))) return false;
  switch (rule) {
    case TypeRule::kNoBool:
    case TypeRule::kIntFromBool: return type >= 1;
    case TypeRule::kInteger: return !is_float(static_cast<DType>(type));
    case TypeRule::kFloat: return is_float(static_cast<DType>(type));
    case TypeRule::kCast: return false;
    default: return true;
  }
}
constexpr bool returns_bool(TypeRule rule) { return rule == TypeRule::kCompare || rule == TypeRule::kPredicate; }

// Whether an operation has a slow path, with as many operands as it has.
template <class Op> constexpr bool has_rare =
    requires { Op::template eval_rare<float>(0.0f); } || requires { Op::template eval_rare<float>(0.0f, 0.0f); } ||
    requires { Op::template eval_rare<float>(0.0f, 0.0f, 0.0f); };

// One operation over n elements. The result may be the same memory as an operand, element by element; `ivdep` states
// that there is no other overlap. kRare: some of these elements need Op's slow path.
template <class Op, class T, class R, bool kRare>
[[gnu::always_inline]] inline void loop(R* dst, const void* a, const T* b, const T* c, std::int64_t n) {
  if constexpr (Op::info.rule == TypeRule::kSelect) {
    const auto* condition = static_cast<const Bool*>(a);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) dst[i] = Op::template eval<T>(condition[i], b[i], c[i]);
  } else {
    const auto* x = static_cast<const T*>(a);
    if constexpr (kRare && Op::info.arity == 1) {
      for (std::int64_t i = 0; i < n; ++i)
        dst[i] = Op::template rare<T>(x[i]) ? Op::template eval_rare<T>(x[i]) : Op::template eval<T>(x[i]);
    } else if constexpr (kRare && Op::info.arity == 2) {
      for (std::int64_t i = 0; i < n; ++i)
        dst[i] = Op::template rare<T>(x[i], b[i]) ? Op::template eval_rare<T>(x[i], b[i])
                                                  : Op::template eval<T>(x[i], b[i]);
    } else if constexpr (kRare) {
      for (std::int64_t i = 0; i < n; ++i)
        dst[i] = Op::template rare<T>(x[i], b[i], c[i]) ? Op::template eval_rare<T>(x[i], b[i], c[i])
                                                        : Op::template eval<T>(x[i], b[i], c[i]);
    } else if constexpr (Op::info.arity == 1) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) dst[i] = Op::template eval<T>(x[i]);
    } else if constexpr (Op::info.arity == 2) {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) dst[i] = Op::template eval<T>(x[i], b[i]);
    } else {
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) dst[i] = Op::template eval<T>(x[i], b[i], c[i]);
    }
  }
}

template <class Op, class T>
[[gnu::always_inline]] inline bool any_rare(const T* x, const T* y, const T* z, std::int64_t n) {
  std::int32_t any = 0;
  if constexpr (Op::info.arity == 1)
    for (std::int64_t i = 0; i < n; ++i) any |= Op::template rare<T>(x[i]);
  else if constexpr (Op::info.arity == 2)
    for (std::int64_t i = 0; i < n; ++i) any |= Op::template rare<T>(x[i], y[i]);
  else
    for (std::int64_t i = 0; i < n; ++i) any |= Op::template rare<T>(x[i], y[i], z[i]);
  return any != 0;
}

template <class Op, class T, class R>
void blocks(R* dst, const void* a, const T* b, const T* c, std::int64_t n) {
  n &= ~(kBlock - 1);  // tells the compiler that no tail is needed
  if constexpr (has_rare<Op>) {
    if (any_rare<Op, T>(static_cast<const T*>(a), b, c, n)) return loop<Op, T, R, true>(dst, a, b, c, n);
  }
  loop<Op, T, R, false>(dst, a, b, c, n);
}

// A tail goes through padded copies, so that the same vector code computes every element.
template <class Op, class T, class R>
[[gnu::noinline]] void tail(R* dst, const void* a, const T* b, const T* c, std::int64_t n) {
  using A = std::conditional_t<Op::info.rule == TypeRule::kSelect, Bool, T>;
  alignas(64) A pa[kBlock] = {};
  alignas(64) T pb[kBlock] = {}, pc[kBlock] = {};
  alignas(64) R result[kBlock];
  for (std::int64_t i = 0; i < n; ++i) pa[i] = static_cast<const A*>(a)[i];
  if constexpr (Op::info.arity > 1)
    for (std::int64_t i = 0; i < n; ++i) pb[i] = b[i];
  if constexpr (Op::info.arity > 2)
    for (std::int64_t i = 0; i < n; ++i) pc[i] = c[i];
  blocks<Op, T, R>(result, pa, pb, pc, kBlock);
  for (std::int64_t i = 0; i < n; ++i) dst[i] = result[i];
}

template <class Op, class T> void run(void* dst, const void* a, const void* b, const void* c, std::int64_t n) {
  using R = std::conditional_t<returns_bool(Op::info.rule), Bool, T>;
  using A = std::conditional_t<Op::info.rule == TypeRule::kSelect, Bool, T>;
  auto* d = static_cast<R*>(dst);
  const auto* tb = static_cast<const T*>(b);
  const auto* tc = static_cast<const T*>(c);
  const std::int64_t whole = n & ~(kBlock - 1);
  blocks<Op, T, R>(d, a, tb, tc, whole);
  if (whole < n) [[unlikely]]
    tail<Op, T, R>(d + whole, static_cast<const A*>(a) + whole, Op::info.arity > 1 ? tb + whole : tb,
                   Op::info.arity > 2 ? tc + whole : tc, n - whole);
}

// ---- conversions ----------------------------------------------------------------------------------------------------

// Vectors and tails may differ in code here: a conversion has only one right result.
template <class From, class To> void cast(void* dst, const void* a, const void*, const void*, std::int64_t n) {
  auto* d = static_cast<To*>(dst);
  const auto* x = static_cast<const From*>(a);
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) d[i] = elementwise_ops::convert<From, To>(x[i]);
}
#if defined(__F16C__)
// The processor's conversions give the bits of ops/narrow.h, whether or not denormals are zero.
template <> void cast<Float16, float>(void* dst, const void* a, const void*, const void*, std::int64_t n) {
  auto* d = static_cast<float*>(dst);
  const auto* x = static_cast<const Float16*>(a);
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(d + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
  for (; i < n; ++i) d[i] = elementwise_ops::convert<Float16, float>(x[i]);
}
template <> void cast<float, Float16>(void* dst, const void* a, const void*, const void*, std::int64_t n) {
  auto* d = static_cast<Float16*>(dst);
  const auto* x = static_cast<const float*>(a);
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(d + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) d[i] = elementwise_ops::convert<float, Float16>(x[i]);
}
#endif

// ---- the tables -----------------------------------------------------------------------------------------------------

template <class Op, int type> constexpr Fn function_of() {
  if constexpr (takes(Op::info.rule, type)) return run<Op, typename element<type>::type>;
  else return nullptr;
}

template <class... Ops> struct Functions;
template <class... Ops> struct Functions<elementwise_ops::OpList<Ops...>> {
  static constexpr Fn table[][kTypes] = {
      {function_of<Ops, 0>(), function_of<Ops, 1>(), function_of<Ops, 2>(), function_of<Ops, 3>(), function_of<Ops, 4>(),
       function_of<Ops, 5>(), function_of<Ops, 6>(), function_of<Ops, 7>()}...};
};

template <class From> struct CastsFrom {
  template <int... to> static constexpr void fill(Fn (&row)[kTypes], std::integer_sequence<int, to...>) {
    ((row[to] = cast<From, typename element<to>::type>), ...);
  }
};
struct Casts {
  Fn table[kTypes][kTypes];
};
template <int... from> constexpr Casts make_casts(std::integer_sequence<int, from...> all) {
  Casts casts{};
  (CastsFrom<typename element<from>::type>::fill(casts.table[from], all), ...);
  return casts;
}
constexpr Casts kCasts = make_casts(std::make_integer_sequence<int, kTypes>());

// ---- pairs: an intermediate that stays in a register ----------------------------------------------------------------

template <class First, class Second, class T, bool kSwapped>
void run_pair(void* dst, const void* a, const void* b, const void* c, std::int64_t n) {
  auto* d = static_cast<T*>(dst);
  const auto *x = static_cast<const T*>(a), *y = static_cast<const T*>(b), *z = static_cast<const T*>(c);
  n &= ~(kBlock - 1);
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const T first = First::template eval<T>(x[i], y[i]);
    d[i] = kSwapped ? Second::template eval<T>(z[i], first) : Second::template eval<T>(first, z[i]);
  }
}

// A compiler may swap the operands of a sum or a product, and would, because the first operation's result is in a
// register. Then the other of two NaNs would propagate.
template <class First, class Second, class T> constexpr Fn swapped_pair() {
  if constexpr (__is_same(Second, elementwise_ops::Add) || __is_same(Second, elementwise_ops::Mult)) return nullptr;
  else return run_pair<First, Second, T, true>;
}

template <class... Ops> struct Pairs;
template <class... Ops> struct Pairs<elementwise_ops::OpList<Ops...>> {
  static constexpr int codes[] = {elementwise_ops::All::code<Ops>...};
  struct Row {
    Fn functions[sizeof...(Ops)][2][2];  // by the second operation, swapped or not, and type
  };
  template <class First> static constexpr Row row() {
    return {{{{run_pair<First, Ops, float, false>, run_pair<First, Ops, double, false>},
              {swapped_pair<First, Ops, float>(), swapped_pair<First, Ops, double>()}}...}};
  }
  static constexpr Row rows[] = {row<Ops>()...};

  static int place(int code) {
    for (int i = 0; i < static_cast<int>(sizeof...(Ops)); ++i)
      if (codes[i] == code) return i;
    return -1;
  }
  static Fn find(int first, int second, bool swapped, int type) {
    const int i = place(first), j = place(second);
    const bool wide = type == static_cast<int>(DType::kFloat64);
    if (i < 0 || j < 0 || (!wide && type != static_cast<int>(DType::kFloat32))) return nullptr;
    return rows[i].functions[j][swapped][wide];
  }
};
using Arithmetic = elementwise_ops::OpList<elementwise_ops::Add, elementwise_ops::Sub, elementwise_ops::Mult,
                                           elementwise_ops::Div>;

// ---- copies ---------------------------------------------------------------------------------------------------------

template <class T> [[gnu::always_inline]] inline void fill_items(void* dst, const void* value, std::int64_t n) {
  T v;
  __builtin_memcpy(&v, value, sizeof v);
  for (std::int64_t i = 0; i < n; ++i) static_cast<T*>(dst)[i] = v;
}
void fill(void* dst, const void* value, std::int64_t item, std::int64_t n) {
  if (item == 4) fill_items<std::uint32_t>(dst, value, n);
  else if (item == 1) fill_items<std::uint8_t>(dst, value, n);
  else if (item == 2) fill_items<std::uint16_t>(dst, value, n);
  else fill_items<std::uint64_t>(dst, value, n);
}

// With a step that the compiler knows, it loads vectors and shuffles them.
template <class T, std::int64_t step> void strided_by(T* __restrict dst, const T* __restrict src, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = src[i * step];
}
template <class T> void strided_items(void* dst, const void* src, std::int64_t step, std::int64_t n) {
  T* __restrict d = static_cast<T*>(dst);
  const T* __restrict s = static_cast<const T*>(src);
  if (step == 2) return strided_by<T, 2>(d, s, n);
  if (step == -1) return strided_by<T, -1>(d, s, n);
  for (std::int64_t i = 0; i < n; ++i) d[i] = s[i * step];
}
void strided(void* dst, const void* src, std::int64_t step, std::int64_t item, std::int64_t n) {
  if (item == 4) strided_items<std::uint32_t>(dst, src, step, n);
  else if (item == 1) strided_items<std::uint8_t>(dst, src, step, n);
  else if (item == 2) strided_items<std::uint16_t>(dst, src, step, n);
  else strided_items<std::uint64_t>(dst, src, step, n);
}

template <class Bits, Bits exponent> [[gnu::always_inline]] inline bool any_full_exponent(const void* x, std::int64_t n) {
  Bits found = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    Bits bits;
    __builtin_memcpy(&bits, static_cast<const Bits*>(x) + i, sizeof bits);
    found |= static_cast<Bits>((bits & exponent) == exponent);
  }
  return found != 0;
}
bool any_nonfinite(const void* x, DType type, std::int64_t n) {
  switch (type) {
    case DType::kFloat16: return any_full_exponent<std::uint16_t, 0x7c00u>(x, n);
    case DType::kBFloat16: return any_full_exponent<std::uint16_t, 0x7f80u>(x, n);
    case DType::kFloat32: return any_full_exponent<std::uint32_t, 0x7f800000u>(x, n);
    default: return any_full_exponent<std::uint64_t, 0x7ff0000000000000u>(x, n);
  }
}

// 16 x 16 elements through a small buffer, so that every cache line of both sides is accessed once. (Rows a power of
// two apart map to the same few cache sets.)
[[gnu::always_inline]] inline void transpose_block(std::uint32_t* dst, std::int64_t dst_stride,
                                                   const std::uint32_t* src, std::int64_t src_stride) {
  using V [[gnu::vector_size(16)]] = std::uint32_t;
  using Mask [[gnu::vector_size(16)]] = std::int32_t;
  V row[16][4];
  for (int i = 0; i < 16; ++i) __builtin_memcpy(row[i], src + i * src_stride, 64);
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i) {
      const V a = row[4 * i][j], b = row[4 * i + 1][j], c = row[4 * i + 2][j], d = row[4 * i + 3][j];
      const V ab0 = __builtin_shuffle(a, b, Mask{0, 4, 1, 5}), ab1 = __builtin_shuffle(a, b, Mask{2, 6, 3, 7});
      const V cd0 = __builtin_shuffle(c, d, Mask{0, 4, 1, 5}), cd1 = __builtin_shuffle(c, d, Mask{2, 6, 3, 7});
      const V column[4] = {
          __builtin_shuffle(ab0, cd0, Mask{0, 1, 4, 5}), __builtin_shuffle(ab0, cd0, Mask{2, 3, 6, 7}),
          __builtin_shuffle(ab1, cd1, Mask{0, 1, 4, 5}), __builtin_shuffle(ab1, cd1, Mask{2, 3, 6, 7})};
      for (int k = 0; k < 4; ++k) __builtin_memcpy(dst + 4 * i + (4 * j + k) * dst_stride, &column[k], sizeof(V));
    }
}

void transpose4(std::uint32_t* dst, std::int64_t dst_stride, const std::uint32_t* src, std::int64_t src_stride,
                std::int64_t rows, std::int64_t columns) {
  const std::int64_t whole_rows = rows & ~std::int64_t{15}, whole_columns = columns & ~std::int64_t{15};
  for (std::int64_t j = 0; j < whole_columns; j += 16)
    for (std::int64_t i = 0; i < whole_rows; i += 16)
      transpose_block(dst + i + j * dst_stride, dst_stride, src + j + i * src_stride, src_stride);
  for (std::int64_t j = 0; j < columns; ++j)
    for (std::int64_t i = j < whole_columns ? whole_rows : 0; i < rows; ++i)
      dst[i + j * dst_stride] = src[j + i * src_stride];
}

}  // namespace

const TileTable& tile_table() {
  static constexpr TileTable table{
      Functions<elementwise_ops::All>::table, kCasts.table, Pairs<Arithmetic>::find, fill, strided, any_nonfinite,
      transpose4};
  return table;
}

}  // namespace owl::cpu::OWL_ISA
