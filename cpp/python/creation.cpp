// Functions that make arrays: filled, random, joined, cut, and summed across devices.
#include <cmath>
#include <limits>
#include <stdexcept>

#include "owl/collective.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/narray_type.h"
#include "python/source.h"

namespace owl::python {

namespace {

// A value for an array of this type: an integer that int32 cannot hold would change silently.
double fill_value(PyObject* o, DType dtype, const char* what) {
  const double v = to_double(o, what);
  constexpr double low = std::numeric_limits<std::int32_t>::min(), high = std::numeric_limits<std::int32_t>::max();
  if (dtype == DType::kInt32 && !(std::trunc(v) >= low && std::trunc(v) <= high))
    throw std::overflow_error(std::string(what) + " " + py::str(py::handle(o)).cast<std::string>() +
                              " does not fit int32");
  return v;
}

PyObject* zeros(PyObject*, const Call& call) {
  const auto [shape, dtype] = call.get("zeros", {"shape", "dtype"}, 1);
  const Shape s = to_shape(shape, "zeros: shape");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::zeros(s, t));
}

PyObject* ones(PyObject*, const Call& call) {
  const auto [shape, dtype] = call.get("ones", {"shape", "dtype"}, 1);
  const Shape s = to_shape(shape, "ones: shape");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::ones(s, t));
}

PyObject* full(PyObject*, const Call& call) {
  const auto [shape, value, dtype] = call.get("full", {"shape", "v", "dtype"}, 2);
  const Shape s = to_shape(shape, "full: shape");
  const DType t = to_dtype(dtype);
  const double v = fill_value(value, t, "full: value");
  note_source();
  return wrap(owl::full(s, v, t));
}

PyObject* arange(PyObject*, const Call& call) {
  const auto [start, stop, step, dtype, n] = call.get("arange", {"start", "stop", "step", "dtype", "n"}, 0);
  if (given(n) == given(start) || (given(n) && given(stop)))
    throw py::type_error("arange: takes n, or start, stop and step");
  const DType t = to_dtype(dtype);
  double from = 0, to = to_double(given(n) ? n : start, "arange: start");
  if (given(stop)) {
    from = to;
    to = to_double(stop, "arange: stop");
  }
  const double by = given(step) ? to_double(step, "arange: step") : 1;
  if (by == 0 || !std::isfinite(by) || !std::isfinite(from) || !std::isfinite(to))
    throw py::value_error("arange: start, stop and step must be finite and step not 0");
  note_source();
  return wrap(owl::arange(from, to, by, t));
}

PyObject* randn(PyObject*, const Call& call) {
  const auto [shape, mu, sigma, dtype] = call.get("randn", {"shape", "mu", "sigma", "dtype"}, 1);
  const Shape s = to_shape(shape, "randn: shape");
  const double mean = mu ? to_double(mu, "randn: mu") : 0;
  const double deviation = sigma ? to_double(sigma, "randn: sigma") : 1;
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::randn(s, mean, deviation, t));
}

PyObject* rand(PyObject*, const Call& call) {
  const auto [shape, low, high, dtype] = call.get("rand", {"shape", "low", "high", "dtype"}, 1);
  const Shape s = to_shape(shape, "rand: shape");
  const double from = low ? to_double(low, "rand: low") : 0;
  const double to = high ? to_double(high, "rand: high") : 1;
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::rand(s, from, to, t));
}

PyObject* randb(PyObject*, const Call& call) {
  const auto [shape, prob, dtype] = call.get("randb", {"shape", "prob", "dtype"}, 2);
  const Shape s = to_shape(shape, "randb: shape");
  const double p = to_double(prob, "randb: prob");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::randb(s, p, t));
}

PyObject* seed(PyObject*, const Call& call) {
  const auto [n] = call.get("seed", {"n"});
  auto number = py::reinterpret_steal<py::object>(PyNumber_Index(n));
  if (!number) throw py::error_already_set();
  const auto value = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    throw py::value_error("seed: n must be from 0 to 2**64 - 1, got " + py::str(number).cast<std::string>());
  }
  owl::seed(value);
  Py_RETURN_NONE;
}

std::vector<NArray> list_of_arrays(PyObject* arrays, const std::string& function) {
  const std::string wanted = function + ": arrays must be a list or tuple of NArrays";
  if (is_narray(arrays)) throw py::type_error(wanted + ", not one NArray");
  auto items = py::reinterpret_steal<py::object>(PySequence_Fast(arrays, wanted.c_str()));
  if (!items) throw py::error_already_set();
  std::vector<NArray> list;
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i)
    list.push_back(to_narray(PySequence_Fast_GET_ITEM(items.ptr(), i), (function + ": every array").c_str()));
  return list;
}

PyObject* concat(PyObject*, const Call& call) {
  const auto [arrays, dim] = call.get("concat", {"arrays", "dim"});
  const auto parts = list_of_arrays(arrays, "concat");
  const auto axis = to_int(dim, "concat: dim");
  note_source();
  return wrap(owl::concat(parts, axis));
}

PyObject* slice(PyObject*, const Call& call) {
  const auto [x, dim, offset, count] = call.get("slice", {"x", "dim", "offset", "count"});
  const NArray& array = to_narray(x, "slice: x");
  const auto axis = to_int(dim, "slice: dim"), from = to_int(offset, "slice: offset");
  const auto n = to_int(count, "slice: count");
  note_source();
  return wrap(owl::slice(array, axis, from, n));
}

PyObject* all_reduce(PyObject*, const Call& call) {
  const auto [arrays] = call.get("all_reduce", {"arrays"});
  const auto parts = list_of_arrays(arrays, "all_reduce");
  note_source();
  py::list sums;
  for (NArray& sum : owl::all_reduce(parts)) {
    const auto wrapped = py::reinterpret_steal<py::object>(wrap(std::move(sum)));
    if (!wrapped) throw py::error_already_set();
    sums.append(wrapped);
  }
  return sums.release().ptr();
}

PyMethodDef functions[] = {
    method<zeros>("zeros",
        "zeros(shape, dtype='float32')\n--\n\nAn array of zeros.\n\n"
        "ShapeError: an empty shape or a negative length; DTypeError: not bool, int32, float32 or float64."),
    method<ones>("ones",
        "ones(shape, dtype='float32')\n--\n\nAn array of ones.\n\n"
        "ShapeError: an empty shape or a negative length; DTypeError: not bool, int32, float32 or float64."),
    method<full>("full",
        "full(shape, v, dtype='float32')\n--\n\nAn array with the value v everywhere.\n\n"
        "ShapeError: an empty shape or a negative length; OverflowError: a value that int32 cannot hold."),
    method<arange>("arange",
        "arange(start=None, stop=None, step=1, dtype='float32', n=None)\n--\n\n"
        "The values from start up to, not including, stop in steps; with one number, n, those from 0 to n - 1.\n"
        "Shape [count]."),
    method<randn>("randn",
        "randn(shape, mu=0.0, sigma=1.0, dtype='float32')\n--\n\n"
        "Normal random numbers with mean mu and standard deviation sigma.\n\n"
        "ValueError: a negative sigma. DTypeError: not float32 or float64."),
    method<rand>("rand",
        "rand(shape, low=0.0, high=1.0, dtype='float32')\n--\n\n"
        "Uniform random numbers, low included, high not.\n\n"
        "ValueError: low is above high, or the difference is no finite number. DTypeError: not float32 or float64."),
    method<randb>("randb",
        "randb(shape, prob, dtype='float32')\n--\n\n1 with probability prob, else 0.\n\n"
        "ValueError: prob outside 0 to 1."),
    method<seed>("seed",
        "seed(n)\n--\n\nRestarts the random numbers: the same seed and the same calls give the same numbers, whatever\n"
        "the threads, the device or the timing. n is from 0 to 2**64 - 1."),
    method<concat>("concat",
        "concat(arrays, dim)\n--\n\nThe arrays joined along axis dim; their other axes agree.\n\n"
        "ShapeError: they don't, or there is no array."),
    method<slice>("slice",
        "slice(x, dim, offset, count)\n--\n\n"
        "count elements of axis dim, from offset on; the axis stays. Along the last axis the result shares the memory\n"
        "of x.\n\nIndexError or ShapeError: outside the axis."),
    method<all_reduce>("all_reduce",
        "all_reduce(arrays)\n--\n\n"
        "The sum of arrays that have one shape and type and live on a device each: a list of it on every one of these\n"
        "devices, in their order. What is summed first depends on the number of arrays alone, so the bits are always\n"
        "the same, on all devices.\n\n"
        "ShapeError, DTypeError: shapes or types differ, or are bool; DeviceError: two arrays on one device;\n"
        "ValueError: an empty list."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_creation(py::module_& m) { add_functions(m, functions); }

}  // namespace owl::python
