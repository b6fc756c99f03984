#include "python/narray_type.h"

#include <new>
#include <utility>

namespace owl::python {

PyTypeObject* narray_type = nullptr;

namespace {

// Released objects kept for reuse, because a script creates and drops one for every operation.
constexpr int kMaxFree = 256;
PyObject* free_objects[kMaxFree];
int free_count = 0;

}  // namespace

void dealloc_narray(PyObject* self) noexcept {
  auto* o = reinterpret_cast<PyNArray*>(self);
  if (o->weakrefs) PyObject_ClearWeakRefs(self);
  o->value.~NArray();
  PyTypeObject* type = Py_TYPE(self);
  if (free_count < kMaxFree)
    free_objects[free_count++] = self;
  else
    PyObject_Free(self);
  Py_DECREF(type);
}

PyObject* wrap(NArray value) noexcept {
  PyObject* self;
  if (free_count > 0) {
    self = free_objects[--free_count];
  } else {
    self = static_cast<PyObject*>(PyObject_Malloc(sizeof(PyNArray)));
    if (!self) return PyErr_NoMemory();
  }
  PyObject_Init(self, narray_type);
  auto* o = reinterpret_cast<PyNArray*>(self);
  new (&o->value) NArray(std::move(value));
  o->weakrefs = nullptr;
  return self;
}

}  // namespace owl::python
