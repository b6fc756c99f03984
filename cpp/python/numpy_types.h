// NumPy's classes and dtypes, looked up once.
#pragma once

#include <pybind11/numpy.h>
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
  bool has_bfloat16;  // ml_dtypes is installed
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

// The names of all types, for messages.
inline constexpr const char* kAllTypes = "bool, uint8, int32, int64, float16, bfloat16, float32 and float64";

// Borrowed. NumPy has no bfloat16 of its own: it is ml_dtypes', or the text "bfloat16" where that is not installed.
py::handle numpy_dtype(DType dtype);
py::dtype array_dtype(DType dtype);  // the same, for an array; DTypeError: ml_dtypes is not installed
DType to_dtype(PyObject* o, DType fallback = DType::kFloat32);  // anything for numpy.dtype(); null or None: fallback

}  // namespace owl::python
