#include "python/numpy_types.h"

#include <pybind11/numpy.h>

#include <string>

#include "owl/error.h"
#include "python/bind.h"
#include "python/text.h"

namespace owl::python {

const NumpyModule* numpy = nullptr;

namespace {
bool is_bfloat16(PyObject* scalar) {
  return numpy->has_bfloat16 && py::getattr(scalar, "dtype").equal(numpy_dtype(DType::kBFloat16));
}
}  // namespace

NumberKind numpy_number(PyObject* o) {
  if (is_a(o, numpy->generic)) {
    if (is_a(o, numpy->boolean)) return NumberKind::kBool;
    if (is_a(o, numpy->integer)) return NumberKind::kInt;
    if (is_a(o, numpy->floating) || is_bfloat16(o)) return NumberKind::kFloat;
    return NumberKind::kNone;
  }
  if (!is_a(o, numpy->ndarray)) return NumberKind::kNone;
  const auto a = py::reinterpret_borrow<py::array>(o);
  if (a.ndim() != 0) return NumberKind::kNone;
  switch (a.dtype().kind()) {
    case 'b': return NumberKind::kBool;
    case 'i': case 'u': return NumberKind::kInt;
    case 'f': return NumberKind::kFloat;
    default: return is_bfloat16(o) ? NumberKind::kFloat : NumberKind::kNone;
  }
}

bool is_array_like(PyObject* o) {
  return PyList_Check(o) || PyTuple_Check(o) || is_a(o, numpy->ndarray);
}

py::handle numpy_dtype(DType dtype) { return numpy->dtypes[static_cast<int>(dtype)]; }

py::dtype array_dtype(DType dtype) {
  if (dtype == DType::kBFloat16 && !numpy->has_bfloat16)
    throw DTypeError("NumPy has no bfloat16 of its own: install the package ml_dtypes (pip install ml_dtypes), or use "
                     "x.astype('float32') first");
  return py::reinterpret_borrow<py::dtype>(numpy_dtype(dtype));
}

namespace {

// The numpy.dtype that `o` names, in this machine's byte order; null if it names none.
py::object numpy_knows(PyObject* o) {
  try {
    return numpy->dtype(py::handle(o)).attr("newbyteorder")("=");
  } catch (const py::error_already_set& e) {
    if (!e.matches(PyExc_Exception) || e.matches(PyExc_MemoryError)) throw;
    return {};
  }
}

}  // namespace

DType to_dtype(PyObject* o, DType fallback) {
  if (!o || o == Py_None) return fallback;
  for (int i = 0; i < kDTypeCount; ++i)
    if (o == numpy->dtypes[i].ptr()) return static_cast<DType>(i);
  if (o == reinterpret_cast<PyObject*>(&PyLong_Type)) return DType::kInt32;  // as literals: int64 by name
  if (PyUnicode_Check(o) && PyUnicode_CompareWithASCIIString(o, "bfloat16") == 0) return DType::kBFloat16;
  const py::object dtype = numpy_knows(o);
  if (!dtype) throw DTypeError("dtype " + shown(o) + " is not known; owl has " + kAllTypes);
  for (int i = 0; i < kDTypeCount; ++i)
    if (dtype.equal(numpy->dtypes[i])) return static_cast<DType>(i);
  throw DTypeError("dtype " + py::str(dtype).cast<std::string>() + " is not supported; owl has " + kAllTypes);
}

namespace {

py::object dtype_called(NumpyModule& module, const std::string& name) {
  if (name != "bfloat16") return module.dtype(name);
  try {
    const py::object found = module.dtype(py::module_::import("ml_dtypes").attr("bfloat16"));
    module.has_bfloat16 = true;
    return found;
  } catch (const py::error_already_set& e) {
    if (!e.matches(PyExc_ImportError)) throw;
    module.has_bfloat16 = false;
    return py::str(name);
  }
}

}  // namespace

void bind_numpy(py::module_& m) {
  auto module = py::module_::import("numpy");
  auto* found = new NumpyModule;
  found->asarray = module.attr("asarray");
  found->ascontiguousarray = module.attr("ascontiguousarray");
  found->dtype = module.attr("dtype");
  found->array2string = module.attr("array2string");
  found->get_printoptions = module.attr("get_printoptions");
  found->ndarray = module.attr("ndarray");
  found->generic = module.attr("generic");
  found->boolean = module.attr("bool_");
  found->integer = module.attr("integer");
  found->floating = module.attr("floating");
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string dtype_name(name(static_cast<DType>(i)));
    found->dtypes[i] = dtype_called(*found, dtype_name).release();
    m.attr(dtype_name == "bool" ? "bool_" : dtype_name.c_str()) = found->dtypes[i];
  }
  numpy = found;
}

}  // namespace owl::python
