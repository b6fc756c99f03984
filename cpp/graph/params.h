// The non-array arguments of an operation: a struct for each family, which names its fields once, in visit().
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/module_api.h"
#include "owl/dtype.h"
#include "owl/shape.h"

namespace owl {

// The address stands for what has no text: code, or what several operations share.
using ParamValue =
    std::variant<bool, std::int64_t, double, std::string_view, DType, std::vector<std::int64_t>, const void*>;
using ParamVisitor = std::function<void(const char* name, const ParamValue& value)>;

// Immutable once recorded.
struct Params {
  virtual ~Params() = default;
  // Calls `field` for each, in the order of declaration. Two of the same type whose fields are equal are the same
  // parameters: what shows, compares or hands on parameters reads them here.
  virtual void visit(const ParamVisitor& field) const = 0;
};

// "axes=[0, 1], all=false", without the addresses. Empty where `params` is null.
OWL_MODULE_API std::string text_of(const Params* params);
// The same with the addresses: equal for equal parameters, and only for these. Numbers are written exactly.
OWL_MODULE_API std::string key_of(const Params* params);
// Whether no number is NaN or infinite.
bool is_finite(const Params* params);

inline std::vector<std::int64_t> lengths_of(const Shape& shape) {
  std::vector<std::int64_t> lengths;
  for (int axis = 0; axis < shape.ndim(); ++axis) lengths.push_back(shape[axis]);
  return lengths;
}

}  // namespace owl
