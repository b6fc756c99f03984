// The objects of the Python class NArray: a hand-written CPython type, because every operation of a script pays for
// their creation, operators and release. narray_class.h has the parts of the class.
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

// The class has no subclasses, so a single comparison decides.
inline bool is_narray(PyObject* o) { return Py_TYPE(o) == narray_type; }
inline const NArray& narray(PyObject* o) { return reinterpret_cast<PyNArray*>(o)->value; }

// A new Python object that takes over the value; null, with the Python error set, if memory is exhausted.
PyObject* wrap(NArray value) noexcept;

void dealloc_narray(PyObject* self) noexcept;  // the class's tp_dealloc

}  // namespace owl::python
