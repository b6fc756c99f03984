#include "python/operand.h"

#include "python/arguments.h"
#include "python/numpy_types.h"
#include "python/text.h"

namespace owl::python {

namespace {

double integer_value(PyObject* o) {
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(o));
  const double v = index ? PyLong_AsDouble(index.ptr()) : -1.0;
  if (v == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return v;
}

Operand number(NumberKind kind, double value) {
  Operand operand(value);
  operand.kind = static_cast<std::uint8_t>(kind);
  return operand;
}

}  // namespace

void refuse_operand(PyObject* o, const char* place) {
  std::string message = std::string("owl: ") + place + " must be an NArray or a real number, not " + type_name(o);
  if (is_array_like(o))
    message += "; convert it with owl.from_numpy first (it reverses the axes: owl is column-major)";
  throw py::type_error(message);
}

bool to_operand_slow(PyObject* o, const char* place, Operand& operand) {
  if (PyBool_Check(o)) {
    operand = number(NumberKind::kBool, o == Py_True);
  } else if (PyLong_Check(o)) {
    operand = number(NumberKind::kInt, integer_value(o));
  } else if (PyFloat_Check(o)) {
    operand = Operand(PyFloat_AsDouble(o));
  } else if (const auto kind = numpy_number(o); kind != NumberKind::kNone) {
    const double value = kind == NumberKind::kInt ? integer_value(o) : PyFloat_AsDouble(o);
    if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
    operand = number(kind, value);
  } else if (is_array_like(o) || o == Py_None || PyUnicode_Check(o) || PyBytes_Check(o) || PyComplex_Check(o)) {
    refuse_operand(o, place);
  } else {
    return false;
  }
  return true;
}

}  // namespace owl::python
