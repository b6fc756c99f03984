// From a run-time element type to the C++ type of its elements.
#pragma once

#include <cstdint>

#include "base/module_api.h"
#include "owl/dtype.h"

namespace owl {

// An element of a uint8 array: a type of its own, because a bool's is std::uint8_t.
enum class UInt8 : std::uint8_t {};

namespace detail {
template <DType> struct Element;
template <> struct Element<DType::kBool> { using Type = std::uint8_t; };  // 0 or 1
template <> struct Element<DType::kUInt8> { using Type = UInt8; };
template <> struct Element<DType::kInt32> { using Type = std::int32_t; };
template <> struct Element<DType::kInt64> { using Type = std::int64_t; };
template <> struct Element<DType::kFloat16> { using Type = Float16; };
template <> struct Element<DType::kBFloat16> { using Type = BFloat16; };
template <> struct Element<DType::kFloat32> { using Type = float; };
template <> struct Element<DType::kFloat64> { using Type = double; };
[[noreturn]] OWL_MODULE_API void refuse_dtype(const char* what, DType dtype);
}  // namespace detail

// Calls f.operator()<T>() with the C++ type of `dtype`, one of the types listed. DTypeError, naming `what`, for all
// others.
template <DType First, DType... Others, class F> decltype(auto) visit_dtype(const char* what, DType dtype, F&& f) {
  if (dtype == First) return f.template operator()<typename detail::Element<First>::Type>();
  if constexpr (sizeof...(Others) > 0) return visit_dtype<Others...>(what, dtype, f);
  else detail::refuse_dtype(what, dtype);
}

// The types in which arrays are computed (compute_type).
template <class F> decltype(auto) visit_computed(const char* what, DType dtype, F&& f) {
  return visit_dtype<DType::kBool, DType::kInt32, DType::kInt64, DType::kFloat32, DType::kFloat64>(what, dtype, f);
}
// The element types of the network kernels.
template <class F> decltype(auto) visit_float(const char* what, DType dtype, F&& f) {
  return visit_dtype<DType::kFloat32, DType::kFloat64>(what, dtype, f);
}
template <class F> decltype(auto) visit_any_dtype(const char* what, DType dtype, F&& f) {
  return visit_dtype<DType::kBool, DType::kUInt8, DType::kInt32, DType::kInt64, DType::kFloat16, DType::kBFloat16,
                     DType::kFloat32, DType::kFloat64>(what, dtype, f);
}

}  // namespace owl
