// Python objects as operands of elementwise operations.
#pragma once

#include <Python.h>

#include "owl/narray.h"
#include "python/narray_type.h"

namespace owl::python {

// An array or a number. False for a type that owl does not know (its own reflected operator may); throws a TypeError
// for the types that users take for operands. `place` is for messages: "operand of +".
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
