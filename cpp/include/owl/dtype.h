// Element types of owl arrays and their promotion order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace owl {

// The order is the promotion order: of two operands the larger type wins.
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

constexpr DType promote(DType a, DType b) { return a < b ? b : a; }
constexpr bool is_float(DType t) { return t >= DType::kFloat32; }

template <class T> struct dtype_of;
template <> struct dtype_of<bool> { static constexpr DType value = DType::kBool; };
template <> struct dtype_of<std::int32_t> { static constexpr DType value = DType::kInt32; };
template <> struct dtype_of<float> { static constexpr DType value = DType::kFloat32; };
template <> struct dtype_of<double> { static constexpr DType value = DType::kFloat64; };

}  // namespace owl
