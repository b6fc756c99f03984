#include "python/operand.h"

#include "python/arguments.h"
#include "python/numpy_types.h"
#include "python/text.h"

namespace owl::python {

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
