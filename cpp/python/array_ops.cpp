// Functions of arrays that are neither elementwise nor make arrays of nothing: products, choosing by indices, sorting.
#include "python/arguments.h"
#include "python/bind.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"
#include "python/text.h"

namespace owl::python {

namespace {

// An array of integers, or a list of them.
NArray to_indices(PyObject* o, const char* function) {
  const std::string what = std::string(function) + ": indices";
  if (!PyList_Check(o) && !PyTuple_Check(o)) {
    if (is_integer(o)) throw py::type_error(what + " must be an NArray or a list of integers, not one integer");
    return to_narray(o, (what + ", if no list of integers,").c_str());
  }
  auto items = py::reinterpret_steal<py::object>(PySequence_Fast(o, what.c_str()));
  if (!items) throw py::error_already_set();
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i)
    if (PyFloat_Check(PySequence_Fast_GET_ITEM(items.ptr(), i)))
      throw DTypeError(what + " must be integers; one is " +
                       py::repr(PySequence_Fast_GET_ITEM(items.ptr(), i)).cast<std::string>());
  std::vector<std::int32_t> indices;
  for (const std::int64_t each : to_ints(o, what.c_str())) {
    if (each < INT32_MIN || each > INT32_MAX)
      throw IndexError(std::string(function) + ": index " + std::to_string(each) + " is out of range for every axis");
    indices.push_back(static_cast<std::int32_t>(each));
  }
  return from_host(indices, Shape{static_cast<std::int64_t>(indices.size())});
}

// An array, or a number of a type that does not promote x.
NArray to_values(PyObject* o, const NArray& x) {
  const DType type = x.dtype();
  if (is_integer(o))
    return owl::full(Shape{1}, exact_number(o, "put_add: values"), type == DType::kBool ? DType::kInt32 : type);
  if (PyFloat_Check(o)) return owl::full(Shape{1}, PyFloat_AS_DOUBLE(o), float_type(type));
  return to_narray(o, "put_add: values");
}

PyObject* take(PyObject*, const Call& call) {
  const auto [x, indices, axis] = call.get("take", {"x", "indices", "axis"});
  const NArray& array = to_narray(x, "take: x");
  const auto along = to_int(axis, "take: axis");
  note_source();
  return wrap(owl::take(array, to_indices(indices, "take"), along));
}

PyObject* put_add(PyObject*, const Call& call) {
  const auto [x, indices, values, axis] = call.get("put_add", {"x", "indices", "values", "axis"});
  const NArray& array = to_narray(x, "put_add: x");
  const auto along = to_int(axis, "put_add: axis");
  note_source();
  const NArray places = to_indices(indices, "put_add");
  return wrap(owl::put_add(array, places, to_values(values, array), along));
}

PyObject* one_hot(PyObject*, const Call& call) {
  const auto [labels, n, dtype] = call.get("one_hot", {"labels", "n", "dtype"}, 2);
  const auto classes = to_int(n, "one_hot: n");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::one_hot(to_indices(labels, "one_hot"), classes, t));
}

PyObject* matmul(PyObject*, const Call& call) {
  const auto [a, b] = call.get("matmul", {"a", "b"});
  const NArray &left = to_narray(a, "matmul: a"), &right = to_narray(b, "matmul: b");
  note_source();
  return wrap(owl::matmul(left, right));
}

std::int64_t axis_or_first(PyObject* axis, const char* what) { return axis ? to_int(axis, what) : 0; }

PyObject* sort(PyObject*, const Call& call) {
  const auto [x, axis] = call.get("sort", {"x", "axis"}, 1);
  const NArray& array = to_narray(x, "sort: x");
  const auto along = axis_or_first(axis, "sort: axis");
  note_source();
  return wrap(owl::sort(array, along));
}

PyObject* argsort(PyObject*, const Call& call) {
  const auto [x, axis] = call.get("argsort", {"x", "axis"}, 1);
  const NArray& array = to_narray(x, "argsort: x");
  const auto along = axis_or_first(axis, "argsort: axis");
  note_source();
  return wrap(owl::argsort(array, along));
}

PyObject* topk(PyObject*, const Call& call) {
  const auto [x, k, axis] = call.get("topk", {"x", "k", "axis"}, 2);
  const NArray& array = to_narray(x, "topk: x");
  const auto count = to_int(k, "topk: k"), along = axis_or_first(axis, "topk: axis");
  note_source();
  auto [values, indices] = owl::topk(array, count, along);
  const auto first = py::reinterpret_steal<py::object>(wrap(std::move(values)));
  const auto second = py::reinterpret_steal<py::object>(wrap(std::move(indices)));
  if (!first || !second) throw py::error_already_set();
  return py::make_tuple(first, second).release().ptr();
}

PyMethodDef array_functions[] = {
    method<take>("take",
        "take(x, indices, axis)\n--\n\n"
        "The elements of an axis that the indices name: an array of integers with any number of axes, which take the\n"
        "place of the axis, or a list. Negative ones count from the end.\n\n"
        "IndexError, when the result is waited for: an index out of range. DTypeError: indices that are no integers."),
    method<put_add>("put_add",
        "put_add(x, indices, values, axis)\n--\n\n"
        "x with values added to the elements that take(x, indices, axis) would give; to an element that several\n"
        "indices name, in their order. The values have the shape of that result, or broadcast to it.\n\n"
        "IndexError, when the result is waited for: an index out of range. DTypeError: indices that are no integers,\n"
        "or bools to add. ShapeError: the values do not fit."),
    method<one_hot>("one_hot",
        "one_hot(labels, n, dtype='float32')\n--\n\n"
        "Labels of shape [N] or [1, N] as columns, shape [n, N]: 1 at the place of the label, else 0.\n\n"
        "IndexError, when the result is waited for: a label that is not from 0 to n - 1. DTypeError: labels that are\n"
        "no integers. ShapeError: another shape."),
    method<matmul>("matmul",
        "matmul(a, b)\n--\n\n"
        "The matrix product; of arrays with more than two axes the products of the leading two, while the others\n"
        "broadcast: [m, k, ...] x [k, n, ...] is [m, n, ...].\n\n"
        "ShapeError: the shapes do not fit, or an array has one axis."),
    method<sort>("sort",
        "sort(x, axis=0)\n--\n\nThe elements in ascending order along an axis, NaN last."),
    method<argsort>("argsort",
        "argsort(x, axis=0)\n--\n\n"
        "The places of the elements in ascending order along an axis, int32; of equals the first comes first, NaN\n"
        "last."),
    method<topk>("topk",
        "topk(x, k, axis=0)\n--\n\n"
        "The k largest elements along an axis and their places (int32), (values, indices): the largest first, of\n"
        "equals the first, NaN before all numbers.\n\n"
        "ShapeError: the axis has fewer than k elements."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_array_ops(py::module_& m) { add_functions(m, array_functions); }

}  // namespace owl::python
