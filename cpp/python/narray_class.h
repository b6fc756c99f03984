// The Python class NArray, assembled from its areas.
#pragma once

#include <Python.h>

#include "owl/narray.h"

namespace owl::python {

template <class T> PyType_Slot type_slot(int id, T* what) { return {id, reinterpret_cast<void*>(what)}; }

// The areas of the class, each in a separate file.
extern PyMethodDef narray_methods[];       // narray_methods.cpp
extern const PyType_Slot number_slots[];   // narray_number.cpp; ends with {0, null}
extern const PyType_Slot mapping_slots[];  // narray_index.cpp
PyObject* narray_repr(PyObject* self) noexcept;  // narray_repr.cpp; waits
PyObject* narray_item(const NArray& x);  // waits; a Python bool, int or float; throws

}  // namespace owl::python
