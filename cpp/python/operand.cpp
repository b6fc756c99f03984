#include "python/operand.h"

#include "python/arguments.h"
#include "python/numpy_types.h"
#include "python/text.h"

namespace owl::python {

namespace {

Number whole_number(PyObject* o) {
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(o));
  if (!index) throw py::error_already_set();
  int overflow = 0;
  Number number(static_cast<std::int64_t>(PyLong_AsLongLongAndOverflow(index.ptr(), &overflow)));
  if (overflow == 0) return number;
  number.fits_int64 = false;
  number.value = PyLong_AsDouble(index.ptr());
  if (number.value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return number;
}

}  // namespace

bool to_number(PyObject* o, Number& number) {
  if (PyFloat_CheckExact(o)) {
    number = PyFloat_AS_DOUBLE(o);
    return true;
  }
  const NumberKind kind = PyBool_Check(o)    ? NumberKind::kBool
                          : PyLong_Check(o)  ? NumberKind::kInt
                          : PyFloat_Check(o) ? NumberKind::kFloat
                                             : numpy_number(o);
  switch (kind) {
    case NumberKind::kNone: return false;
    case NumberKind::kInt: number = whole_number(o); return true;
    case NumberKind::kBool: {
      const int truth = PyObject_IsTrue(o);
      if (truth < 0) throw py::error_already_set();
      number = truth != 0;
      return true;
    }
    case NumberKind::kFloat: break;
  }
  const double value = PyFloat_AsDouble(o);
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  number = value;
  return true;
}

void refuse_operand(PyObject* o, const char* place) {
  std::string message = std::string("owl: ") + place + " must be an NArray or a real number, not " + type_name(o);
  if (is_array_like(o))
    message += "; convert it with owl.from_numpy first (it reverses the axes: owl is column-major)";
  throw py::type_error(message);
}

bool to_operand_slow(PyObject* o, const char* place, Operand& operand) {
  if (Number number; to_number(o, number)) {
    operand = Operand(number);
  } else if (is_array_like(o) || o == Py_None || PyUnicode_Check(o) || PyBytes_Check(o) || PyComplex_Check(o)) {
    refuse_operand(o, place);
  } else {
    return false;
  }
  return true;
}

}  // namespace owl::python
