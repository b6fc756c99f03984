// Element types of owl arrays, and the promotion of two of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "owl/export.h"

namespace owl {

enum class DType : std::uint8_t { kBool, kUInt8, kInt32, kInt64, kFloat16, kBFloat16, kFloat32, kFloat64 };

inline constexpr int kDTypeCount = 8;

constexpr std::size_t itemsize(DType t) {
  constexpr std::size_t sizes[] = {1, 1, 4, 8, 2, 2, 4, 8};
  return sizes[static_cast<int>(t)];
}

constexpr std::string_view name(DType t) {
  constexpr std::string_view names[] = {"bool", "uint8", "int32", "int64", "float16", "bfloat16", "float32", "float64"};
  return names[static_cast<int>(t)];
}

namespace detail {
struct Promotions {
  DType of[kDTypeCount][kDTypeCount];
};
consteval Promotions make_promotions() {
  constexpr DType b = DType::kBool, u = DType::kUInt8, i = DType::kInt32, l = DType::kInt64, h = DType::kFloat16,
                  g = DType::kBFloat16, f = DType::kFloat32, d = DType::kFloat64;
  return {{
      // with        bool uint8 int32 int64 float16 bfloat16 float32 float64
      /* bool */     {b, u, i, l, h, g, f, d},
      /* uint8 */    {u, u, i, l, h, g, f, d},
      /* int32 */    {i, i, i, l, h, g, f, d},
      /* int64 */    {l, l, l, l, h, g, f, d},
      /* float16 */  {h, h, h, h, h, f, f, d},
      /* bfloat16 */ {g, g, g, g, f, g, f, d},
      /* float32 */  {f, f, f, f, f, f, f, d},
      /* float64 */  {d, d, d, d, d, d, d, d},
  }};
}
inline constexpr Promotions promotions = make_promotions();
}  // namespace detail

// The type of an operation on arrays of two types.
constexpr DType promote(DType a, DType b) { return detail::promotions.of[static_cast<int>(a)][static_cast<int>(b)]; }

constexpr bool is_float(DType t) { return t >= DType::kFloat16; }
constexpr bool is_half(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16; }

// The type of a mathematical function of an array: float32 for integers and bools.
constexpr DType float_type(DType t) { return is_float(t) ? t : DType::kFloat32; }

// The type in which kernels and expressions compute arrays of this type. The others are only read, written and
// converted.
constexpr DType compute_type(DType t) {
  return t == DType::kUInt8 ? DType::kInt32 : is_half(t) ? DType::kFloat32 : t;
}
// The type of sums and products of elements.
constexpr DType sum_type(DType t) {
  return t == DType::kBool ? DType::kInt32 : t == DType::kUInt8 ? DType::kInt64 : t;
}
constexpr bool is_narrow(DType t) { return compute_type(t) != t; }

// Elements of float16 and bfloat16 arrays in the host's memory: their bits. to_float is exact; the others round to the
// nearest, of two equally near ones to the even.
struct Float16 {
  std::uint16_t bits;
  friend bool operator==(const Float16&, const Float16&) = default;  // of the bits
};
struct BFloat16 {
  std::uint16_t bits;
  friend bool operator==(const BFloat16&, const BFloat16&) = default;
};
OWL_API float to_float(Float16 x);
OWL_API float to_float(BFloat16 x);
OWL_API Float16 to_float16(double x);
OWL_API BFloat16 to_bfloat16(double x);

template <class T> struct dtype_of;
template <> struct dtype_of<bool> { static constexpr DType value = DType::kBool; };
template <> struct dtype_of<std::uint8_t> { static constexpr DType value = DType::kUInt8; };
template <> struct dtype_of<std::int32_t> { static constexpr DType value = DType::kInt32; };
template <> struct dtype_of<std::int64_t> { static constexpr DType value = DType::kInt64; };
template <> struct dtype_of<Float16> { static constexpr DType value = DType::kFloat16; };
template <> struct dtype_of<BFloat16> { static constexpr DType value = DType::kBFloat16; };
template <> struct dtype_of<float> { static constexpr DType value = DType::kFloat32; };
template <> struct dtype_of<double> { static constexpr DType value = DType::kFloat64; };

}  // namespace owl
