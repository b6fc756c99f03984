// Lets pybind11 functions take and return owl::NArray.
#pragma once

#include <pybind11/pybind11.h>

#include "python/arguments.h"
#include "python/narray_type.h"

namespace pybind11::detail {

template <> struct type_caster<owl::NArray> {
  PYBIND11_TYPE_CASTER(owl::NArray, const_name("owl.NArray"));

  bool load(handle source, bool) {
    value = owl::python::to_narray(source.ptr(), "owl: the argument");  // no overloads: its TypeError is the final one
    return true;
  }
  static handle cast(owl::NArray array, return_value_policy, handle) { return owl::python::wrap(std::move(array)); }
};

}  // namespace pybind11::detail
