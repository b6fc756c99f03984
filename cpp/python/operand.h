// Python objects as operands of elementwise operations.
#pragma once

#include <Python.h>

#include "owl/narray.h"
#include "python/narray_type.h"

namespace owl::python {

// An array or a number. False for an unknown type (which may have a reflected operator); throws a TypeError for
// array-like types, which users may pass as operands. `place` is for messages: "operand of +".
bool to_operand_slow(PyObject* o, const char* place, Operand& operand);

inline bool to_operand(PyObject* o, const char* place, Operand& operand) {
  if (is_narray(o)) {
    operand = Operand(narray(o));
    return true;
  }
  if (PyFloat_CheckExact(o)) {
    operand = Operand(PyFloat_AS_DOUBLE(o));
    return true;
  }
  return to_operand_slow(o, place, operand);
}

[[noreturn]] void refuse_operand(PyObject* o, const char* place);

}  // namespace owl::python
