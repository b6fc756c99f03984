// Functions that join, cut and rearrange arrays, and logsumexp.
#include "python/arguments.h"
#include "python/bind.h"
#include "python/narray_type.h"
#include "python/source.h"

namespace owl::python {

namespace {

PyObject* concat(PyObject*, const Call& call) {
  const auto [arrays, axis] = call.get("concat", {"arrays", "axis|dim"});
  const auto parts = list_of_arrays(arrays, "concat");
  const auto along = to_int(axis, "concat: axis");
  note_source();
  return wrap(owl::concat(parts, along));
}

PyObject* slice(PyObject*, const Call& call) {
  const auto [x, axis, offset, count] = call.get("slice", {"x", "axis|dim", "offset", "count"});
  const NArray& array = to_narray(x, "slice: x");
  const auto along = to_int(axis, "slice: axis"), from = to_int(offset, "slice: offset");
  const auto n = to_int(count, "slice: count");
  note_source();
  return wrap(owl::slice(array, along, from, n));
}

// A list or tuple of anything.
bool is_list(PyObject* o) { return PyList_Check(o) || PyTuple_Check(o); }

PyObject* stack(PyObject*, const Call& call) {
  const auto [arrays, axis] = call.get("stack", {"arrays", "axis"}, 1);
  const auto parts = list_of_arrays(arrays, "stack");
  const auto along = axis ? to_int(axis, "stack: axis") : 0;
  note_source();
  return wrap(owl::stack(parts, along));
}

PyObject* split(PyObject*, const Call& call) {
  const auto [x, parts, axis] = call.get("split", {"x", "parts", "axis"});
  const NArray& array = to_narray(x, "split: x");
  const auto along = to_int(axis, "split: axis");
  const auto numbers = to_ints(parts, "split: parts");
  note_source();
  py::list all;
  for (NArray& part : is_integer(parts) ? owl::split(array, numbers[0], along) : owl::split(array, numbers, along)) {
    const auto wrapped = py::reinterpret_steal<py::object>(wrap(std::move(part)));
    if (!wrapped) throw py::error_already_set();
    all.append(wrapped);
  }
  return all.release().ptr();
}

std::pair<std::int64_t, std::int64_t> pair_of(const std::vector<std::int64_t>& one_or_two) {
  if (one_or_two.empty() || one_or_two.size() > 2)
    throw ShapeError("pad: widths of an axis are one or two integers, not " + std::to_string(one_or_two.size()));
  return {one_or_two.front(), one_or_two.back()};
}

// NumPy's forms: an integer, (before, behind) for all axes, or a list of such pairs, one for each axis.
Widths to_widths(PyObject* o) {
  constexpr const char* what = "pad: widths";
  auto items = is_list(o) ? py::reinterpret_steal<py::object>(PySequence_Fast(o, what)) : py::object();
  if (!items || PySequence_Fast_GET_SIZE(items.ptr()) == 0 || !is_list(PySequence_Fast_GET_ITEM(items.ptr(), 0)))
    return {pair_of(to_ints(o, what))};
  Widths widths;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i)
    widths.push_back(pair_of(to_ints(PySequence_Fast_GET_ITEM(items.ptr(), i), what)));
  return widths;
}

PyObject* pad(PyObject*, const Call& call) {
  const auto [x, widths, value] = call.get("pad", {"x", "widths", "value"}, 2);
  const NArray& array = to_narray(x, "pad: x");
  const Widths pairs = to_widths(widths);
  const Number v = value ? fill_value(value, array.dtype(), "pad: value") : 0;
  note_source();
  return wrap(owl::pad(array, pairs, v));
}

PyObject* flip(PyObject*, const Call& call) {
  const auto [x, axis] = call.get("flip", {"x", "axis"}, 1);
  const NArray& array = to_narray(x, "flip: x");
  const auto axes = to_axes(axis, "flip: axis");
  note_source();
  return wrap(owl::flip(array, axes));
}

PyObject* roll(PyObject*, const Call& call) {
  const auto [x, shift, axis] = call.get("roll", {"x", "shift", "axis"}, 2);
  const NArray& array = to_narray(x, "roll: x");
  const auto shifts = to_ints(shift, "roll: shift");
  const auto axes = to_axes(axis, "roll: axis");
  note_source();
  return wrap(owl::roll(array, shifts, axes));
}

PyObject* tile(PyObject*, const Call& call) {
  const auto [x, reps] = call.get("tile", {"x", "reps"});
  const NArray& array = to_narray(x, "tile: x");
  const auto counts = to_ints(reps, "tile: reps");
  note_source();
  return wrap(owl::tile(array, counts));
}

PyObject* repeat(PyObject*, const Call& call) {
  const auto [x, repeats, axis] = call.get("repeat", {"x", "repeats", "axis"}, 2);
  const NArray& array = to_narray(x, "repeat: x");
  const auto counts = to_ints(repeats, "repeat: repeats");
  std::optional<std::int64_t> along;
  if (given(axis)) along = to_int(axis, "repeat: axis");
  note_source();
  return wrap(owl::repeat(array, counts, along));
}

PyObject* logsumexp(PyObject*, const Call& call) {
  const auto [x, axis] = call.get("logsumexp", {"x", "axis"}, 1);
  const NArray& array = to_narray(x, "logsumexp: x");
  const auto axes = to_axes(axis, "logsumexp: axis");
  note_source();
  return wrap(owl::logsumexp(array, axes));
}

PyMethodDef functions[] = {
    method<concat>("concat",
        "concat(arrays, axis)\n--\n\nThe arrays joined along an axis; their other axes must be equal. Minerva's name\n"
        "for the argument, dim, works too.\n\n"
        "ShapeError: they are not, or there is no array."),
    method<slice>("slice",
        "slice(x, axis, offset, count)\n--\n\n"
        "count elements of an axis, from offset on; the axis stays. Along the last axis the result shares the memory\n"
        "of x. Minerva's name for the argument, dim, works too.\n\nIndexError or ShapeError: outside the axis."),
    method<stack>("stack",
        "stack(arrays, axis=0)\n--\n\n"
        "Arrays of one shape, joined along a new axis, which is the first unless `axis` says otherwise.\n\n"
        "ShapeError: the shapes differ, or there is no array."),
    method<split>("split",
        "split(x, parts, axis)\n--\n\n"
        "A list of the parts of x along an axis: as many equal ones as the integer `parts` says, or cut at the places\n"
        "that a list says, from [1, 3] x[:1], x[1:3] and x[3:].\n\nShapeError: it does not divide equally."),
    method<pad>("pad",
        "pad(x, widths, value=0)\n--\n\n"
        "x with elements of this value around it. `widths` is an integer, or a pair (before, behind), for all axes,\n"
        "or a list of pairs, one for each axis.\n\nShapeError: another number of pairs, or a negative width."),
    method<flip>("flip",
        "flip(x, axis=None)\n--\n\n"
        "x backwards along an axis or a list of axes; without axis along all. A view: no element is copied."),
    method<roll>("roll",
        "roll(x, shift, axis=None)\n--\n\n"
        "Element i moved to i + shift along an axis, from its end to its start. Lists of shifts and axes go together;\n"
        "without axis all elements move, in memory order."),
    method<tile>("tile",
        "tile(x, reps)\n--\n\n"
        "x repeated as a whole: reps[i] times along axis i, counted from the first; an integer is the first axis's.\n\n"
        "ShapeError: a negative number."),
    method<repeat>("repeat",
        "repeat(x, repeats, axis=None)\n--\n\n"
        "Each element of an axis repeated so many times; a list has a number for each. Without axis all elements in\n"
        "memory order, with one axis.\n\nShapeError: a negative number, or another number of them than elements."),
    method<logsumexp>("logsumexp",
        "logsumexp(x, axis=None)\n--\n\n"
        "log(exp(x).sum(axis)) without overflow: over an axis or a list of axes, which stay with length 1; without\n"
        "axis over all, shape [1]. Integers give float32."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_rearrange(py::module_& m) { add_functions(m, functions); }

}  // namespace owl::python
