#include "python/narray_class.h"

#include <structmember.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "python/bind.h"
#include "python/dlpack.h"
#include "python/errors.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"

namespace owl::python {

namespace {

// Arrays compare elementwise, so the hash can only be that of the identity.
Py_hash_t hash(PyObject* self) noexcept {
  return static_cast<Py_hash_t>(reinterpret_cast<std::uintptr_t>(self) >> 4);
}

PyObject* get_shape(PyObject* self, void*) noexcept {
  const Shape& shape = narray(self).shape();
  PyObject* list = PyList_New(shape.ndim());
  for (int i = 0; list && i < shape.ndim(); ++i) {
    PyObject* length = PyLong_FromLongLong(shape[i]);
    if (!length) Py_CLEAR(list);
    else PyList_SET_ITEM(list, i, length);
  }
  return list;
}

PyObject* get_ndim(PyObject* self, void*) noexcept { return PyLong_FromLong(narray(self).ndim()); }
PyObject* get_size(PyObject* self, void*) noexcept { return PyLong_FromLongLong(narray(self).size()); }
PyObject* get_nbytes(PyObject* self, void*) noexcept {
  const NArray& x = narray(self);
  return PyLong_FromLongLong(x.size() * static_cast<std::int64_t>(itemsize(x.dtype())));
}
PyObject* get_dtype(PyObject* self, void*) noexcept { return numpy_dtype(narray(self).dtype()).inc_ref().ptr(); }
PyObject* get_device(PyObject* self, void*) noexcept { return PyLong_FromLong(narray(self).device()); }

PyObject* get_transposed(PyObject* self, void*) noexcept {
  return guarded([&] {
    note_source();
    return wrap(narray(self).trans());
  });
}

PyGetSetDef properties[] = {
    {"shape", get_shape, nullptr, "The lengths of the axes, a list; the first axis varies fastest in memory.", nullptr},
    {"ndim", get_ndim, nullptr, "The number of axes, at least 1.", nullptr},
    {"size", get_size, nullptr, "The number of elements.", nullptr},
    {"nbytes", get_nbytes, nullptr, "The bytes of its elements: size times the bytes of one.", nullptr},
    {"dtype", get_dtype, nullptr, "The element type, a numpy.dtype (of bfloat16 ml_dtypes', or the text where that is not installed).", nullptr},
    {"device", get_device, nullptr, "The id of the device that holds, or will hold, the value.", nullptr},
    {"T", get_transposed, nullptr, "x.trans(): the 2-d transpose.", nullptr},
    {"__cuda_array_interface__", cuda_array_interface, nullptr,
     "On a GPU: the memory of x for other libraries, axes reversed, and the stream on which its value is computed.\n"
     "They must not write to it. AttributeError: x is not on a GPU.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(PyNArray, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

constexpr char kDoc[] =
    "An immutable, column-major array of one element type on one device, computed when the script\n"
    "waits for it or when its device is idle. The first axis varies fastest: a minibatch of images is [width,\n"
    "height, channels, batch]. Exchange with NumPy reverses the axes and moves no element.\n\n"
    "Arrays come from owl.from_numpy, owl.zeros, owl.randn and so on, and from operations on arrays. Between arrays\n"
    "a * b is the matrix product; owl.elewise.mult is the elementwise one. Elementwise operations broadcast axes of\n"
    "length 1, aligned at the first axis.";

template <class T> void append(std::vector<PyType_Slot>& slots, int slot, T* what) {
  slots.push_back({slot, reinterpret_cast<void*>(what)});
}

// The base class of NArray, which owl._hints fills. Created here, because a class from Python would add garbage
// collection.
py::object make_hinting() {
  PyType_Slot slots[] = {{0, nullptr}};
  PyType_Spec spec = {"owl._owl._Hinting", sizeof(PyObject), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  auto type = py::reinterpret_steal<py::object>(PyType_FromSpec(&spec));
  if (!type) throw py::error_already_set();
  return type;
}

}  // namespace

void bind_narray(py::module_& m) {
  std::vector<PyType_Slot> slots;
  append(slots, Py_tp_doc, const_cast<char*>(kDoc));
  append(slots, Py_tp_dealloc, &dealloc_narray);
  append(slots, Py_tp_hash, &hash);
  append(slots, Py_tp_repr, &narray_repr);
  append(slots, Py_tp_getset, properties);
  append(slots, Py_tp_members, members);
  append(slots, Py_tp_methods, narray_methods);
  for (const auto* s = number_slots; s->slot; ++s) slots.push_back(*s);
  for (const auto* s = mapping_slots; s->slot; ++s) slots.push_back(*s);
  slots.push_back({0, nullptr});

  PyType_Spec spec = {"owl.NArray", sizeof(PyNArray), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                      slots.data()};
  const py::object base = make_hinting();
  m.attr("_Hinting") = base;
  PyObject* type = PyType_FromSpecWithBases(&spec, py::make_tuple(base).ptr());
  if (!type) throw py::error_already_set();
  py::object class_of_arrays = py::module_::import("owl._hints").attr("ClassOfArrays");
  Py_SET_TYPE(type, reinterpret_cast<PyTypeObject*>(class_of_arrays.release().ptr()));  // from 3.12 on a spec can do it
  narray_type = reinterpret_cast<PyTypeObject*>(type);
  // Makes NumPy's operators return NotImplemented, so that `numpy_array + x` raises owl's own TypeError.
  py::handle(type).attr("__array_ufunc__") = py::none();
  m.attr("NArray") = py::handle(type);
}

}  // namespace owl::python
