// x[...], len(x) and iteration: NumPy's basic indexing in owl's axis order.
#include <vector>

#include "python/arguments.h"
#include "python/narray_class.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"
#include "python/text.h"

namespace owl::python {

namespace {

using Kind = IndexItem::Kind;

[[noreturn]] void refuse_index(PyObject* key) {
  throw py::type_error("owl: an NArray is indexed by integers, slices, Ellipsis and None, not by " + type_name(key) +
                       "; for a choice by condition use owl.elewise.where");
}

bool is_index(PyObject* key) {
  if (PyBool_Check(key)) return false;
  return PyLong_Check(key) || (PyIndex_Check(key) && !is_narray(key) && !is_array_like(key));
}

IndexItem integer_item(PyObject* key, const Shape& shape, int axis) {
  auto number = py::reinterpret_steal<py::object>(PyNumber_Index(key));
  if (!number) throw py::error_already_set();
  const std::int64_t length = shape[axis];
  int overflow = 0;
  long long index = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow || index < -length || index >= length)
    throw IndexError("index " + py::str(number).cast<std::string>() + " is out of range for axis " +
                     std::to_string(axis) + " of size " + std::to_string(length) + " (shape " + shape.str() + ")");
  if (index < 0) index += length;
  return {Kind::kInteger, index, 1, 1};
}

IndexItem slice_item(PyObject* key, std::int64_t length) {
  Py_ssize_t start, stop, step;
  if (PySlice_Unpack(key, &start, &stop, &step) < 0) throw py::error_already_set();
  const Py_ssize_t count = PySlice_AdjustIndices(length, &start, &stop, step);
  return {Kind::kSlice, start, count, step};
}

NArray subscript(const NArray& x, std::span<PyObject* const> keys) {
  const Shape& shape = x.shape();
  int named = 0;  // axes that have an index
  bool ellipsis = false;
  for (PyObject* key : keys) {
    if (key == Py_Ellipsis) {
      if (ellipsis) throw IndexError("an index can only have a single Ellipsis ('...')");
      ellipsis = true;
    } else if (key != Py_None) {
      if (!PySlice_Check(key) && !is_index(key)) refuse_index(key);
      ++named;
    }
  }
  if (named > shape.ndim())
    throw IndexError("too many indices: shape " + shape.str() + " has " + std::to_string(shape.ndim()) +
                     " axes, but " + std::to_string(named) + " were indexed");

  std::vector<IndexItem> items;
  items.reserve(keys.size() + static_cast<std::size_t>(shape.ndim()));
  int axis = 0;
  const auto take_whole_axes = [&](int until) {
    for (; axis < until; ++axis) items.push_back({Kind::kSlice, 0, shape[axis], 1});
  };
  for (PyObject* key : keys) {
    if (key == Py_Ellipsis) {
      take_whole_axes(axis + shape.ndim() - named);
    } else if (key == Py_None) {
      items.push_back({Kind::kNewAxis, 0, 1, 1});
    } else {
      items.push_back(PySlice_Check(key) ? slice_item(key, shape[axis]) : integer_item(key, shape, axis));
      ++axis;
    }
  }
  take_whole_axes(shape.ndim());
  note_source();
  return x.index(items);
}

PyObject* get_item(PyObject* self, PyObject* key) noexcept {
  return guarded([&] {
    if (!PyTuple_Check(key)) return wrap(subscript(narray(self), {&key, 1}));
    PyObject* const* keys = PySequence_Fast_ITEMS(key);
    return wrap(subscript(narray(self), {keys, static_cast<std::size_t>(PyTuple_GET_SIZE(key))}));
  });
}

int set_item(PyObject*, PyObject*, PyObject*) noexcept {
  PyErr_SetString(PyExc_TypeError,
                  "owl: an NArray is immutable; build a new one, for example with owl.elewise.where or owl.concat");
  return -1;
}

Py_ssize_t length(PyObject* self) noexcept { return static_cast<Py_ssize_t>(narray(self).shape()[0]); }

// For iteration, which the IndexError ends.
PyObject* get_at(PyObject* self, Py_ssize_t index) noexcept {
  return guarded([&]() -> PyObject* {
    const Py_ssize_t size = length(self);
    if (index < 0 || index >= size) {
      PyErr_SetString(PyExc_IndexError, "owl: end of the first axis");
      return nullptr;
    }
    auto key = py::reinterpret_steal<py::object>(PyLong_FromSsize_t(index));
    PyObject* keys[] = {key.ptr()};
    return wrap(subscript(narray(self), keys));
  });
}

PyObject* iterate(PyObject* self) noexcept { return PySeqIter_New(self); }

}  // namespace

const PyType_Slot mapping_slots[] = {
    type_slot(Py_mp_subscript, &get_item),
    type_slot(Py_mp_ass_subscript, &set_item),
    type_slot(Py_mp_length, &length),
    type_slot(Py_sq_length, &length),
    type_slot(Py_sq_item, &get_at),
    type_slot(Py_tp_iter, &iterate),
    {0, nullptr},
};

}  // namespace owl::python
