// Element types of owl arrays, and the promotion of two of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace owl {

enum class DType : std::uint8_t { kBool, kInt32, kFloat32, kFloat64 };

inline constexpr int kDTypeCount = 4;

constexpr std::size_t itemsize(DType t) {
  constexpr std::size_t sizes[] = {1, 4, 4, 8};
  return sizes[static_cast<int>(t)];
}

constexpr std::string_view name(DType t) {
  constexpr std::string_view names[] = {"bool", "int32", "float32", "float64"};
  return names[static_cast<int>(t)];
}

namespace detail {
inline constexpr DType promotions[kDTypeCount][kDTypeCount] = {
    // with        bool              int32             float32           float64
    /* bool */    {DType::kBool,    DType::kInt32,    DType::kFloat32,  DType::kFloat64},
    /* int32 */   {DType::kInt32,   DType::kInt32,    DType::kFloat32,  DType::kFloat64},
    /* float32 */ {DType::kFloat32, DType::kFloat32,  DType::kFloat32,  DType::kFloat64},
    /* float64 */ {DType::kFloat64, DType::kFloat64,  DType::kFloat64,  DType::kFloat64},
};
}  // namespace detail

// The type in which an operation computes arrays of two types.
constexpr DType promote(DType a, DType b) { return detail::promotions[static_cast<int>(a)][static_cast<int>(b)]; }

constexpr bool is_float(DType t) {
  constexpr bool floats[] = {false, false, true, true};
  return floats[static_cast<int>(t)];
}

template <class T> struct dtype_of;
template <> struct dtype_of<bool> { static constexpr DType value = DType::kBool; };
template <> struct dtype_of<std::int32_t> { static constexpr DType value = DType::kInt32; };
template <> struct dtype_of<float> { static constexpr DType value = DType::kFloat32; };
template <> struct dtype_of<double> { static constexpr DType value = DType::kFloat64; };

}  // namespace owl
