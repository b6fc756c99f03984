// The methods of NArray.
#include <algorithm>
#include <cmath>

#include "python/arguments.h"
#include "python/dlpack.h"
#include "python/narray_class.h"
#include "python/narray_type.h"
#include "python/numpy_exchange.h"
#include "python/numpy_types.h"
#include "python/source.h"

namespace owl::python {

PyObject* narray_item(const NArray& x) {
  if (x.size() != 1)
    throw ShapeError("only an array of one element is a number; this one has shape " + x.shape().str());
  switch (x.dtype()) {
    case DType::kBool: return PyBool_FromLong(x.item<bool>());
    case DType::kUInt8: return PyLong_FromLong(x.item<std::uint8_t>());
    case DType::kInt32: return PyLong_FromLong(x.item<std::int32_t>());
    case DType::kInt64: return PyLong_FromLongLong(x.item<std::int64_t>());
    default: return PyFloat_FromDouble(x.item());
  }
}

namespace {

// Axes or lengths given one by one or as one list.
std::vector<std::int64_t> ints_of(const Call& call, const char* function, const char* argument, const char* what) {
  if (!call.keywords && call.positional > 1) {
    std::vector<std::int64_t> values;
    for (Py_ssize_t i = 0; i < call.positional; ++i) {
      if (!is_integer(call.values[i])) refuse_integers(call.values[i], what);
      values.push_back(to_int(call.values[i], what));
    }
    return values;
  }
  PyObject* slot = nullptr;
  call.parse(function, std::span(&argument, 1), 1, 1, &slot);
  return to_ints(slot, what);
}

// --- shape

PyObject* trans(PyObject* self, const Call& call) {
  call.expect_none("trans");
  note_source();
  return wrap(narray(self).trans());
}

PyObject* reshape(PyObject* self, const Call& call) {
  auto lengths = ints_of(call, "reshape", "shape", "reshape: shape");
  note_source();
  return wrap(narray(self).reshape(std::move(lengths)));
}

PyObject* transpose(PyObject* self, const Call& call) {
  const NArray& x = narray(self);
  std::vector<std::int64_t> axes;
  const bool reversed = call.positional + (call.keywords ? PyTuple_GET_SIZE(call.keywords) : 0) == 1 &&
                        call.values[0] == Py_None;
  if (!reversed && (call.positional || call.keywords)) {
    axes = ints_of(call, "transpose", "axes", "transpose: axes");
  } else {
    for (int i = x.ndim() - 1; i >= 0; --i) axes.push_back(i);
  }
  note_source();
  return wrap(x.transpose(axes));
}

// --- reductions

// np.sum(x) calls x.sum(axis=None, dtype=None, out=None).
void refuse_numpys_arguments(const Call& call, const std::string& name) {
  const Py_ssize_t named = call.keywords ? PyTuple_GET_SIZE(call.keywords) : 0;
  for (Py_ssize_t i = 0; i < named; ++i)
    for (const char* other : {"dtype", "out", "keepdims", "initial", "where"})
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(call.keywords, i), other) == 0)
        throw py::type_error(name + "() has no argument '" + other + "'; it takes axis, and the axes always stay, with "
                             "length 1: write x." + name + "(axis), or np." + name + "(x.to_numpy()) for NumPy's");
}

using Reduction = NArray (NArray::*)(const std::vector<std::int64_t>&) const;

PyObject* reduce(PyObject* self, const Call& call, const char* name, Reduction reduction) {
  refuse_numpys_arguments(call, name);
  const auto [axis] = call.get(name, {"axis"}, 0);
  const auto axes = to_axes(axis, "axis");
  note_source();
  return wrap((narray(self).*reduction)(axes));
}

PyObject* sum(PyObject* self, const Call& call) { return reduce(self, call, "sum", &NArray::sum); }
PyObject* max(PyObject* self, const Call& call) { return reduce(self, call, "max", &NArray::max); }
PyObject* min(PyObject* self, const Call& call) { return reduce(self, call, "min", &NArray::min); }
PyObject* mean(PyObject* self, const Call& call) { return reduce(self, call, "mean", &NArray::mean); }

PyObject* prod(PyObject* self, const Call& call) { return reduce(self, call, "prod", &NArray::prod); }

PyObject* cumsum(PyObject* self, const Call& call) {
  refuse_numpys_arguments(call, "cumsum");
  const auto [axis] = call.get("cumsum", {"axis"});
  const auto along = to_int(axis, "cumsum: axis");
  note_source();
  return wrap(narray(self).cumsum(along));
}

PyObject* any(PyObject* self, const Call& call) { return reduce(self, call, "any", &NArray::any); }
PyObject* all(PyObject* self, const Call& call) { return reduce(self, call, "all", &NArray::all); }

using Spread = NArray (NArray::*)(const std::vector<std::int64_t>&, double) const;

PyObject* spread(PyObject* self, const Call& call, const std::string& name, Spread spread) {
  refuse_numpys_arguments(call, name);
  const auto [axis, correction] = call.get(name.c_str(), {"axis", "correction"}, 0);
  const auto axes = to_axes(axis, "axis");
  const double taken = correction ? to_double(correction, (name + ": correction").c_str()) : 0;
  note_source();
  return wrap((narray(self).*spread)(axes, taken));
}

PyObject* var(PyObject* self, const Call& call) { return spread(self, call, "var", &NArray::var); }
PyObject* standard_deviation(PyObject* self, const Call& call) { return spread(self, call, "std", &NArray::std); }

using Search = NArray (NArray::*)(std::optional<std::int64_t>) const;

PyObject* search(PyObject* self, const Call& call, const char* name, Search search) {
  refuse_numpys_arguments(call, name);
  const auto [axis] = call.get(name, {"axis"}, 0);
  std::optional<std::int64_t> along;
  if (given(axis)) along = to_int(axis, "axis");
  note_source();
  return wrap((narray(self).*search)(along));
}

PyObject* argmax(PyObject* self, const Call& call) { return search(self, call, "argmax", &NArray::argmax); }
PyObject* argmin(PyObject* self, const Call& call) { return search(self, call, "argmin", &NArray::argmin); }

PyObject* max_index(PyObject* self, const Call& call) {
  const auto [axis] = call.get("max_index", {"axis"});
  const auto along = to_int(axis, "max_index: axis");
  note_source();
  return wrap(narray(self).max_index(along));
}

PyObject* count_zero(PyObject* self, const Call& call) {
  call.expect_none("count_zero");
  note_source();
  return PyLong_FromLongLong(narray(self).count_zero());
}

// --- waiting

PyObject* start_eval(PyObject* self, const Call& call) {
  call.expect_none("start_eval");
  narray(self).start_eval();
  Py_RETURN_NONE;
}

PyObject* wait_for_eval(PyObject* self, const Call& call) {
  const auto [timeout] = call.get("wait_for_eval", {"timeout"}, 0);
  std::optional<double> seconds;
  if (given(timeout)) {
    seconds = to_double(timeout, "wait_for_eval: timeout");
    if (std::isnan(*seconds)) throw py::value_error("wait_for_eval: timeout must be a number of seconds, got nan");
    if (*seconds < 0) seconds = 0;
    if (*seconds > 1e9) seconds.reset();  // about 30 years: no limit
  }
  return PyBool_FromLong(narray(self).wait_for_eval(seconds));
}

PyObject* ready(PyObject* self, const Call& call) {
  call.expect_none("ready");
  return PyBool_FromLong(narray(self).ready());
}

// --- values

PyObject* numpy_copy(PyObject* self, const Call& call) {
  call.expect_none("to_numpy");
  auto* const object = reinterpret_cast<PyNArray*>(self);
  const bool gives_up = !object->weakrefs && is_temporary(self, call.values);
  return (gives_up ? to_numpy(std::move(object->value)) : to_numpy(object->value)).release().ptr();
}

PyObject* array_protocol(PyObject* self, const Call& call) {
  const auto [dtype, copy] = call.get("__array__", {"dtype", "copy"}, 0);
  if (copy == Py_False)
    throw py::value_error("owl: a NumPy array of an NArray is always a copy; numpy.from_dlpack(x) shares the memory");
  py::object array = to_numpy(narray(self));
  if (given(dtype)) array = array.attr("astype")(py::handle(dtype), py::arg("copy") = false);
  return array.release().ptr();
}

// For pickle and multiprocessing: the array as its NumPy copy.
PyObject* reduce(PyObject* self, const Call& call) {
  call.expect_none("__reduce__");
  const auto from_numpy = py::module_::import("owl").attr("from_numpy");
  return py::make_tuple(from_numpy, py::make_tuple(to_numpy(narray(self)))).release().ptr();
}

PyObject* item(PyObject* self, const Call& call) {
  call.expect_none("item");
  return narray_item(narray(self));
}

PyObject* tolist(PyObject* self, const Call& call) {
  call.expect_none("tolist");
  const NArray& x = narray(self);
  const bool has_list = x.dtype() != DType::kBFloat16;  // NumPy's lists would hold ml_dtypes' numbers
  return to_numpy(has_list ? x : x.astype(DType::kFloat32)).attr("T").attr("tolist")().release().ptr();
}

// f"{loss:.3f}" formats the one element; without a format it is the repr.
PyObject* format(PyObject* self, const Call& call) {
  const auto [spec] = call.get("__format__", {"spec"});
  if (!PyUnicode_Check(spec) || PyUnicode_GetLength(spec) == 0) return PyObject_Str(self);
  auto number = py::reinterpret_steal<py::object>(narray_item(narray(self)));
  return PyObject_Format(number.ptr(), spec);
}

PyObject* astype(PyObject* self, const Call& call) {
  const auto [dtype] = call.get("astype", {"dtype"});
  if (!given(dtype)) throw DTypeError(std::string("astype: dtype must be one of ") + kAllTypes + ", not None");
  const DType target = to_dtype(dtype);
  note_source();
  return wrap(narray(self).astype(target));
}

PyObject* copy_to(PyObject* self, const Call& call) {
  const auto [device] = call.get("copy_to", {"device"});
  const int id = to_device_id(device, "copy_to: device");
  note_source();
  return wrap(narray(self).copy_to(id));
}

// Without the names that the class has only for their hints.
PyObject* list_names(PyObject* self, const Call& call) {
  call.expect_none("__dir__");
  return PyObject_Dir(reinterpret_cast<PyObject*>(Py_TYPE(self)));
}

// Arrays are immutable, so a copy is the array itself.
PyObject* copy(PyObject* self, const Call&) { return Py_NewRef(self); }

}  // namespace

PyMethodDef narray_methods[] = {
    method<trans>("trans",
        "trans($self)\n--\n\nThe transpose of a 2-d array: [m, n] gives [n, m]. A matrix product reads it\n"
        "without a copy.\n\nShapeError: not 2-d."),
    method<reshape>("reshape",
        "reshape($self, shape, *lengths)\n--\n\n"
        "The same elements, in column-major order, under another shape. One length may be -1 and follows from the\n"
        "others. The lengths may also be given one by one.\n\n"
        "ShapeError: the sizes differ, or the shape is empty."),
    method<transpose>("transpose",
        "transpose($self, axes=None, *more_axes)\n--\n\n"
        "The axes permuted: axis i of the result is axis axes[i] of x. Without axes, reversed.\n\n"
        "ShapeError: not a permutation."),
    method<sum>("sum",
        "sum($self, axis=None)\n--\n\n"
        "The sum over an axis (negative counts from the end) or a list of axes, which stay with length 1; without\n"
        "axis over all, shape [1]. bool and int32 give int32, uint8 and int64 int64; halves are added in float32."),
    method<max>("max",
        "max($self, axis=None)\n--\n\n"
        "The largest element over an axis or a list of axes, which stay with length 1; without axis over all, shape\n"
        "[1].\n\nShapeError: over an axis of length 0."),
    method<min>("min",
        "min($self, axis=None)\n--\n\n"
        "The smallest element over an axis or a list of axes, which stay with length 1; without axis over all, shape\n"
        "[1].\n\nShapeError: over an axis of length 0."),
    method<mean>("mean",
        "mean($self, axis=None)\n--\n\n"
        "The mean over an axis or a list of axes, which stay with length 1; without axis over all, shape [1].\n"
        "Integers give float32; over an axis of length 0 it is NaN."),
    method<prod>("prod",
        "prod($self, axis=None)\n--\n\n"
        "The product over an axis or a list of axes, which stay with length 1; without axis over all, shape [1]. bool\n"
        "and int32 give int32."),
    method<cumsum>("cumsum",
        "cumsum($self, axis)\n--\n\n"
        "The sum of the elements so far along an axis: of the shape of x. bool and int32 give int32."),
    method<var>("var",
        "var($self, axis=None, correction=0)\n--\n\n"
        "The variance, the mean of (x - x.mean(axis)) ** 2, over an axis or a list of axes, which stay with length 1;\n"
        "without axis over all, shape [1]. `correction` is taken from the number of elements that divides: 1 for the\n"
        "sample's. Integers give float32."),
    method<standard_deviation>("std",
        "std($self, axis=None, correction=0)\n--\n\nThe standard deviation: the square root of var(axis, correction)."),
    method<any>("any",
        "any($self, axis=None)\n--\n\n"
        "Whether one element is not 0, a bool, over an axis or a list of axes, which stay with length 1; without axis\n"
        "over all, shape [1]. Of no elements False."),
    method<all>("all",
        "all($self, axis=None)\n--\n\n"
        "Whether no element is 0, a bool, over an axis or a list of axes, which stay with length 1; without axis over\n"
        "all, shape [1]. Of no elements True."),
    method<argmax>("argmax",
        "argmax($self, axis=None)\n--\n\n"
        "The index of the largest element along an axis, of equal ones the first: int32, and the axis stays with\n"
        "length 1. Without axis over all elements in column-major order, shape [1]."),
    method<argmin>("argmin",
        "argmin($self, axis=None)\n--\n\n"
        "The index of the smallest element along an axis, of equal ones the first: int32, and the axis stays with\n"
        "length 1. Without axis over all elements in column-major order, shape [1]."),
    method<max_index>("max_index", "max_index($self, axis)\n--\n\nThe same as argmax(axis)."),
    method<count_zero>("count_zero",
        "count_zero($self)\n--\n\nWaits for x; returns the number of zeros as a Python int."),
    method<start_eval>("start_eval", "start_eval($self)\n--\n\nStarts computing the value. Never waits."),
    method<wait_for_eval>("wait_for_eval",
        "wait_for_eval($self, timeout=None)\n--\n\n"
        "Waits until the value is computed and returns True; False if `timeout` seconds were not enough. Raises the\n"
        "operation's error if computing it failed."),
    method<ready>("ready", "ready($self)\n--\n\nWhether the value is computed. Never waits."),
    method<numpy_copy>("to_numpy",
        "to_numpy($self)\n--\n\n"
        "Waits for x; returns a new NumPy array, C-order, with the axes reversed ([w, h, n] gives (n, h, w)).\n"
        "A large value that no name refers to, as in (x + 1).to_numpy(), gives the array its memory in place of a copy:\n"
        "memory_stats counts it until NumPy frees it. numpy.asarray(x) always copies."),
    method<to_cupy>("to_cupy",
        "to_cupy($self)\n--\n\n"
        "A CuPy array that shares the memory of x on its GPU, axes reversed; do not write to it. Never waits: CuPy's\n"
        "current stream waits for the value.\n\n"
        "DeviceError: x is not on a GPU (use copy_to first). Error: CuPy is not installed."),
    method<array_protocol>("__array__", "__array__($self, dtype=None, copy=None)\n--\n\nnumpy.asarray(x) calls it."),
    method<reduce>("__reduce__",
        "__reduce__($self)\n--\n\nWaits for x. pickle calls it: unpickling puts the copy on the current device."),
    method<item>("item",
        "item($self)\n--\n\n"
        "Waits for x; returns its only element as a Python bool, int or float. float(x), int(x) and bool(x) do the\n"
        "same.\n\n"
        "ShapeError: not exactly one element."),
    method<tolist>("tolist",
        "tolist($self)\n--\n\n"
        "Waits for x; returns nested lists in owl's order of axes, so that x.tolist()[i][j] is x[i, j]."),
    method<format>("__format__",
        "__format__($self, spec)\n--\n\nFormats an array of one element as its number."),
    method<astype>("astype",
        "astype($self, dtype)\n--\n\n"
        "The elements converted to another type: floats to integers by truncation, any type to bool by `!= 0`.\n\n"
        "DTypeError: not a type that owl has."),
    method<copy_to>("copy_to",
        "copy_to($self, device)\n--\n\nThe value on the device with this id.\n\nDeviceError: there is no such device."),
    method<dlpack>("__dlpack__",
        "__dlpack__($self, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
        "The memory of x, axes reversed, for the from_dlpack of another library, which must not write to it. In host\n"
        "memory it waits for x; on a GPU it makes `stream` wait for the value. An array with a negative stride\n"
        "(x[::-1]) is copied, because PyTorch does not accept it.\n\n"
        "BufferError: x cannot be exported to this device, or copy=False and a copy is needed."),
    method<dlpack_device>("__dlpack_device__",
        "__dlpack_device__($self)\n--\n\nThe DLPack pair (device type, device id) of the memory of x."),
    method<list_names>("__dir__", "__dir__($self)\n--\n\nThe names for dir(x) and completion."),
    method<copy>("__copy__", "__copy__($self)\n--\n\nx itself: arrays are immutable."),
    method<copy>("__deepcopy__", "__deepcopy__($self, memo)\n--\n\nx itself: arrays are immutable."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace owl::python
