// The Python class NArray: a hand-written CPython type, because its creation, operators and release are the cost that
// every script pays for every operation.
#pragma once

#include <Python.h>

#include "owl/narray.h"

namespace owl::python {

struct PyNArray {
  PyObject_HEAD
  NArray value;
  PyObject* weakrefs;
};

extern PyTypeObject* narray_type;

// The class cannot be derived from, so that one comparison decides.
inline bool is_narray(PyObject* o) { return Py_TYPE(o) == narray_type; }
inline const NArray& narray(PyObject* o) { return reinterpret_cast<PyNArray*>(o)->value; }

// A new Python object that takes over the value; null with the Python error set where there is no memory.
PyObject* wrap(NArray value) noexcept;

// The areas of the class, each in a file of its own.
extern PyMethodDef narray_methods[];       // narray_methods.cpp
extern const PyType_Slot number_slots[];   // narray_number.cpp; ends with {0, null}
extern const PyType_Slot mapping_slots[];  // narray_index.cpp
PyObject* narray_repr(PyObject* self) noexcept;
PyObject* narray_item(const NArray& x);  // waits; a Python bool, int or float; throws

}  // namespace owl::python
