// The objects of the Python class NArray: a hand-written CPython type, because their creation, operators and release are
// the cost that every script pays for every operation. narray_class.h has what the class is made of.
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

void dealloc_narray(PyObject* self) noexcept;  // the class's tp_dealloc

}  // namespace owl::python
