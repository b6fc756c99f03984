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

// Whether only the interpreter's stack refers to the object, whose method it calls with `arguments`. False if in doubt:
// a reference that C code borrows, as functools.partial does, is not counted.
inline bool is_temporary(PyObject* self, [[maybe_unused]] PyObject* const* arguments) {
#if defined(Py_GIL_DISABLED)
  return false;
#elif PY_VERSION_HEX >= 0x030E0000
  return PyUnstable_Object_IsUniqueReferencedTemporary(self);
#elif PY_VERSION_HEX >= 0x030B0000
  // A method that the interpreter calls has its arguments on the interpreter's stack, which owns a reference to each;
  // the object is in front of them.
  const PyThreadState* const thread = PyThreadState_Get();
  PyObject* const* const slot = arguments - 1;
  const bool on_stack = thread->datastack_chunk && slot >= thread->datastack_chunk->data && slot < thread->datastack_limit;
  return Py_REFCNT(self) == 1 && on_stack && *slot == self;
#else
  return false;
#endif
}

// A new Python object that takes over the value; null, with the Python error set, if memory is exhausted.
PyObject* wrap(NArray value) noexcept;

void dealloc_narray(PyObject* self) noexcept;  // the class's tp_dealloc

}  // namespace owl::python
