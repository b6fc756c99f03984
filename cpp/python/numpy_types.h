// NumPy's classes and the four dtypes, looked up once.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

#include "owl/dtype.h"

namespace owl::python {

namespace py = pybind11;

// The NumPy objects that owl uses; never freed.
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

// The kind of number of a NumPy scalar, or an array without axes; kNone for any other object.
NumberKind numpy_number(PyObject* o);
// NumPy arrays, lists and tuples, which users may pass as operands but owl does not accept.
bool is_array_like(PyObject* o);

py::handle numpy_dtype(DType dtype);                             // borrowed
DType to_dtype(PyObject* o, DType fallback = DType::kFloat32);  // anything for numpy.dtype(); null or None: fallback

}  // namespace owl::python
