// NumPy's classes and the four dtypes, looked up once.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "owl/dtype.h"

namespace owl::python {

namespace py = pybind11;

// What owl uses of NumPy; never freed.
struct NumpyModule {
  py::object asarray, ascontiguousarray, dtype, array2string, get_printoptions;
  py::object ndarray, generic, boolean, integer, floating;
  py::handle dtypes[kDTypeCount];
};
extern const NumpyModule* numpy;

inline bool is_a(PyObject* o, py::handle type) {
  return PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type.ptr())) != 0;
}

enum class NumberKind : std::uint8_t { kNone, kBool, kInt, kFloat };

// What a NumPy scalar, or an array without axes, is as a number; kNone for everything else.
NumberKind numpy_number(PyObject* o);
// NumPy arrays, lists and tuples: what users take for operands and owl does not.
bool is_array_like(PyObject* o);

py::handle numpy_dtype(DType dtype);                             // borrowed
DType to_dtype(PyObject* o, DType fallback = DType::kFloat32);  // whatever numpy.dtype() takes; null or None: fallback

}  // namespace owl::python
