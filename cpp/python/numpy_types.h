// NumPy's classes and the four dtypes, looked up once.
#pragma once

#include <pybind11/numpy.h>

#include "owl/narray.h"

namespace owl::python {

namespace py = pybind11;

enum class NumberKind : std::uint8_t { kNone, kBool, kInt, kFloat };

// What a NumPy scalar, or an array without axes, is as a number; kNone for everything else.
NumberKind numpy_number(PyObject* o);
// NumPy arrays, lists and tuples: what users take for operands and owl does not.
bool is_array_like(PyObject* o);

py::handle numpy_dtype(DType dtype);  // borrowed

// Whether the value is ready in host memory.
bool readable_on_host(const NArray& x);
// Waits; a new, writable NumPy array with the axes reversed.
py::array to_numpy(const NArray& x);

}  // namespace owl::python
