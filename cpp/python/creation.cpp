// Functions that make arrays: constants, random numbers, and sums across devices.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "ops/create.h"
#include "owl/collective.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"
#include "python/text.h"

namespace owl::python {

namespace {

bool is_number(PyObject* o) { return PyFloat_Check(o) || is_integer(o) || numpy_number(o) != NumberKind::kNone; }

// The number of leading arguments that are integers.
Py_ssize_t leading_integers(const Call& call) {
  Py_ssize_t n = 0;
  while (n < call.positional && is_integer(call.values[n])) ++n;
  return n;
}

// A call whose first `count` arguments, if several, become one: zeros(2, 3) is zeros([2, 3]).
class Gathered {
 public:
  Gathered(const Call& call, Py_ssize_t count) : call_(call) {
    if (count < 2) return;
    shape_ = py::reinterpret_steal<py::tuple>(PyTuple_New(count));
    for (Py_ssize_t i = 0; i < count; ++i) PyTuple_SET_ITEM(shape_.ptr(), i, Py_NewRef(call.values[i]));
    const Py_ssize_t named = call.keywords ? PyTuple_GET_SIZE(call.keywords) : 0;
    values_.push_back(shape_.ptr());
    values_.insert(values_.end(), call.values + count, call.values + call.positional + named);
    call_ = {values_.data(), call.positional - count + 1, call.keywords};
  }
  Gathered(const Gathered&) = delete;
  Gathered& operator=(const Gathered&) = delete;
  const Call* operator->() const { return &call_; }

 private:
  py::tuple shape_;
  std::vector<PyObject*> values_;  // borrowed
  Call call_;
};

// zeros(2, 3.0): a number after the lengths is not a type.
Gathered lengths_and_type(const Call& call, const char* function) {
  const Py_ssize_t lengths = leading_integers(call);
  if (lengths > 0 && lengths < call.positional && is_number(call.values[lengths]))
    refuse_integers(call.values[lengths], (std::string(function) + ": shape").c_str());
  return {call, lengths};
}

std::string joined(PyObject* const* values, Py_ssize_t count, bool as_floats) {
  std::string text;
  for (Py_ssize_t i = 0; i < count; ++i) {
    py::object value = py::reinterpret_borrow<py::object>(values[i]);
    if (as_floats) value = py::float_(value);
    (text += i ? ", " : "") += py::str(value).cast<std::string>();
  }
  return text;
}

// Whether the arguments from `from` to `to` can be lengths of a shape.
bool are_lengths(const Call& call, Py_ssize_t from, Py_ssize_t to) {
  for (Py_ssize_t i = from; i < to; ++i)
    if (!is_integer(call.values[i]) || to_int(call.values[i], "shape") < 0) return false;
  return true;
}

// rand(3, 4), randn(3, 4): integers alone are a shape, as in NumPy and PyTorch. randn(3, 0, 1) could mean mu and sigma.
Gathered lengths_alone(const Call& call, const char* function, const char* parameters) {
  const Py_ssize_t count = call.positional, integers = leading_integers(call);
  if (count < 2) return {call, 1};
  for (Py_ssize_t i = 0; i < count; ++i)
    if (!is_number(call.values[i])) return {call, 1};  // the parameter's own check refuses it
  Py_ssize_t lengths = 0;  // leading arguments that can be lengths
  while (lengths < integers && to_int(call.values[lengths], "shape") > 0) ++lengths;
  if (lengths == count) return {call, count};
  lengths = std::max<Py_ssize_t>(lengths, 1);
  const std::string name = function,
                    front = are_lengths(call, 0, lengths) ? joined(call.values, lengths, false) : "3, 4",
                    whole = are_lengths(call, 0, count) ? joined(call.values, count, false) : "3, 4";
  throw ShapeError(name + "(" + joined(call.values, count, false) +
                   "): a shape without brackets is integers above 0 and nothing else; write " + name + "([" + front +
                   "], " + joined(call.values + lengths, count - lengths, true) + ") for " + parameters + ", or " +
                   name + "([" + whole + "]) for a shape of several lengths");
}

PyObject* zeros(PyObject*, const Call& call) {
  const Gathered given = lengths_and_type(call, "zeros");
  const auto [shape, dtype] = given->get("zeros", {"shape", "dtype"}, 1);
  const Shape s = to_shape(shape, "zeros: shape");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::zeros(s, t));
}

PyObject* ones(PyObject*, const Call& call) {
  const Gathered given = lengths_and_type(call, "ones");
  const auto [shape, dtype] = given->get("ones", {"shape", "dtype"}, 1);
  const Shape s = to_shape(shape, "ones: shape");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::ones(s, t));
}

PyObject* full(PyObject*, const Call& call) {
  const auto [shape, value, dtype] = call.get("full", {"shape", "v", "dtype"}, 2);
  if (call.positional == 3 && is_integer(shape) && is_number(dtype))
    throw ShapeError("full(" + joined(call.values, 3, false) + "): takes one shape, then the value; write full([" +
                     joined(call.values, 2, false) + "], " + joined(call.values + 2, 1, false) + ")");
  const Shape s = to_shape(shape, "full: shape");
  const DType t = to_dtype(dtype);
  const Number v = fill_value(value, t, "full: value");
  note_source();
  return wrap(owl::full(s, v, t));
}

PyObject* arange(PyObject*, const Call& call) {
  const auto [start, stop, step, dtype, n] = call.get("arange", {"start", "stop", "step", "dtype", "n"}, 0);
  if (given(n) == given(start) || (given(n) && given(stop)))
    throw py::type_error("arange: takes n, or start, stop and step");
  const DType t = to_dtype(dtype);
  Number from = 0, to = exact_number(given(n) ? n : start, "arange: start");
  if (given(stop)) {
    from = to;
    to = exact_number(stop, "arange: stop");
  }
  const Number by = given(step) ? exact_number(step, "arange: step") : 1;
  if (by.value == 0 || !std::isfinite(by.value) || !std::isfinite(from.value) || !std::isfinite(to.value))
    throw py::value_error("arange: start, stop and step must be finite and step not 0");
  note_source();
  return wrap(owl::arange(from, to, by, t));
}

PyObject* eye(PyObject*, const Call& call) {
  const auto [n, m, k, dtype] = call.get("eye", {"n", "m", "k", "dtype"}, 1);
  const auto rows = to_int(n, "eye: n"), columns = given(m) ? to_int(m, "eye: m") : rows;
  const auto diagonal = k ? to_int(k, "eye: k") : 0;
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::eye(rows, columns, diagonal, t));
}

PyObject* linspace(PyObject*, const Call& call) {
  const auto [start, stop, num, endpoint, dtype] =
      call.get("linspace", {"start", "stop", "num", "endpoint", "dtype"}, 2);
  const double from = to_double(start, "linspace: start"), to = to_double(stop, "linspace: stop");
  const auto count = num ? to_int(num, "linspace: num") : 50;
  const bool closed = to_bool(endpoint, true, "linspace: endpoint");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::linspace(from, to, count, closed, t));
}

std::optional<DType> type_or_same(PyObject* dtype) {
  return given(dtype) ? std::optional(to_dtype(dtype)) : std::nullopt;
}

PyObject* zeros_like(PyObject*, const Call& call) {
  const auto [x, dtype] = call.get("zeros_like", {"x", "dtype"}, 1);
  const NArray& like = to_narray(x, "zeros_like: x");
  const auto t = type_or_same(dtype);
  note_source();
  return wrap(owl::zeros_like(like, t));
}

PyObject* ones_like(PyObject*, const Call& call) {
  const auto [x, dtype] = call.get("ones_like", {"x", "dtype"}, 1);
  const NArray& like = to_narray(x, "ones_like: x");
  const auto t = type_or_same(dtype);
  note_source();
  return wrap(owl::ones_like(like, t));
}

PyObject* full_like(PyObject*, const Call& call) {
  const auto [x, value, dtype] = call.get("full_like", {"x", "v", "dtype"}, 2);
  const NArray& like = to_narray(x, "full_like: x");
  const auto t = type_or_same(dtype);
  const Number v = fill_value(value, t.value_or(like.dtype()), "full_like: value");
  note_source();
  return wrap(owl::full_like(like, v, t));
}

PyObject* randn(PyObject*, const Call& call) {
  const Gathered given = lengths_alone(call, "randn", "mu and sigma");
  const auto [shape, mu, sigma, dtype] = given->get("randn", {"shape", "mu", "sigma", "dtype"}, 1);
  const Shape s = to_shape(shape, "randn: shape");
  const double mean = mu ? to_double(mu, "randn: mu") : 0;
  const double deviation = sigma ? to_double(sigma, "randn: sigma") : 1;
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::randn(s, mean, deviation, t));
}

PyObject* rand(PyObject*, const Call& call) {
  const Gathered given = lengths_alone(call, "rand", "low and high");
  const auto [shape, low, high, dtype] = given->get("rand", {"shape", "low", "high", "dtype"}, 1);
  const Shape s = to_shape(shape, "rand: shape");
  const double from = low ? to_double(low, "rand: low") : 0;
  const double to = high ? to_double(high, "rand: high") : 1;
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::rand(s, from, to, t));
}

PyObject* randb(PyObject*, const Call& call) {
  if (const Py_ssize_t lengths = leading_integers(call); lengths > 1)
    throw ShapeError("randb(" + joined(call.values, lengths, false) + (lengths < call.positional ? ", ...)" : ")") +
                     ": takes one shape, then the probability; write randb([" + joined(call.values, lengths, false) +
                     "], 0.5) for these lengths, or randb([" + joined(call.values, 1, false) + "], " +
                     joined(call.values + 1, 1, true) + ")");
  const auto [shape, prob, dtype] = call.get("randb", {"shape", "prob", "dtype"}, 2);
  const Shape s = to_shape(shape, "randb: shape");
  const double p = to_double(prob, "randb: prob");
  const DType t = to_dtype(dtype);
  note_source();
  return wrap(owl::randb(s, p, t));
}

std::uint64_t to_uint64(PyObject* n, const std::string& what) {
  if (!PyIndex_Check(n)) throw py::type_error(what + " must be an integer, not " + type_name(n));
  auto number = py::reinterpret_steal<py::object>(PyNumber_Index(n));
  if (!number) throw py::error_already_set();
  const auto value = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    throw py::value_error(what + " must be from 0 to 2**64 - 1, got " + py::str(number).cast<std::string>());
  }
  return value;
}

// For what draws a range of a random array by itself, as one of several processes that share a batch does.
PyObject* draw_part(PyObject*, const Call& call) {
  const auto [kind, first, shape, a, b, dtype] = call.get("draw_part", {"kind", "first", "shape", "a", "b", "dtype"});
  const auto is_kind = [&](const char* name) {
    return PyUnicode_Check(kind) && PyUnicode_CompareWithASCIIString(kind, name) == 0;
  };
  const std::int64_t from = to_int(first, "draw_part: first");
  const Shape s = to_shape(shape, "draw_part: shape");
  const double x = to_double(a, "draw_part: a"), y = to_double(b, "draw_part: b");
  const DType t = to_dtype(dtype);
  note_source();
  if (is_kind("rand")) return wrap(rand_part(from, s, x, y, t));
  if (is_kind("randn")) return wrap(randn_part(from, s, x, y, t));
  if (is_kind("randb")) return wrap(randb_part(from, s, x, t));
  throw py::value_error("draw_part: kind must be 'rand', 'randn' or 'randb', not " + to_utf8(py::repr(py::handle(kind))));
}

PyObject* draw_samples(PyObject*, const Call& call) {
  const auto [start, count] = call.get("draw_samples", {"start", "count"});
  const SampleRange range{to_int(start, "draw_samples: start"), to_int(count, "draw_samples: count")};
  if (range.start < 0 || range.count < 0) throw py::value_error("draw_samples: start and count must not be negative");
  set_samples(range);
  Py_RETURN_NONE;
}

PyObject* seed(PyObject*, const Call& call) {
  const auto [n] = call.get("seed", {"n"});
  owl::seed(to_uint64(n, "seed: n"));
  Py_RETURN_NONE;
}

PyObject* random_state(PyObject*, const Call& call) {
  call.expect_none("random_state");
  const RandomState now = owl::random_state();
  return py::make_tuple(now.seed, now.drawn).release().ptr();
}

PyObject* set_random_state(PyObject*, const Call& call) {
  const auto [state] = call.get("set_random_state", {"state"});
  const bool is_pair = (PyTuple_Check(state) || PyList_Check(state)) && PySequence_Size(state) == 2;
  if (!is_pair)
    throw py::type_error("set_random_state: state must be what random_state() gave, two integers, not " +
                         py::repr(state).cast<std::string>());
  const auto pair = py::reinterpret_borrow<py::sequence>(state);
  const py::object seed = pair[0], drawn = pair[1];
  owl::set_random_state({to_uint64(seed.ptr(), "set_random_state: the seed"),
                         to_uint64(drawn.ptr(), "set_random_state: the number of arrays drawn")});
  Py_RETURN_NONE;
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

PyMethodDef creation_functions[] = {
    method<zeros>("zeros",
        "zeros(shape, *lengths, dtype='float32')\n--\n\n"
        "An array of zeros. The lengths may also be given one by one: zeros(3, 4) is zeros([3, 4]).\n\n"
        "ShapeError: an empty shape or a negative length; DTypeError: not a type that owl has."),
    method<ones>("ones",
        "ones(shape, *lengths, dtype='float32')\n--\n\n"
        "An array of ones. The lengths may also be given one by one: ones(3, 4) is ones([3, 4]).\n\n"
        "ShapeError: an empty shape or a negative length; DTypeError: not a type that owl has."),
    method<full>("full",
        "full(shape, v, dtype='float32')\n--\n\nAn array filled with the value v.\n\n"
        "ShapeError: an empty shape or a negative length; OverflowError: a value outside the range of the integer type."),
    method<arange>("arange",
        "arange(start=None, stop=None, step=1, dtype='float32', n=None)\n--\n\n"
        "The values from start up to, not including, stop in steps; with one number, n, those from 0 to n - 1.\n"
        "Shape [count]."),
    method<eye>("eye",
        "eye(n, m=None, k=0, dtype='float32')\n--\n\n"
        "Shape [n, m], or [n, n]: 1 where the second index is the first plus k, else 0.\n\n"
        "ShapeError: a negative length."),
    method<linspace>("linspace",
        "linspace(start, stop, num=50, endpoint=True, dtype='float32')\n--\n\n"
        "Shape [num]: evenly spaced values from start to stop, computed in float64 as NumPy does; without\n"
        "`endpoint`, stop would be the next one. Integers are rounded down.\n\n"
        "ShapeError: a negative num; ValueError: start or stop is not finite."),
    method<zeros_like>("zeros_like",
        "zeros_like(x, dtype=None)\n--\n\nZeros of x's shape, and of its type unless another is given."),
    method<ones_like>("ones_like",
        "ones_like(x, dtype=None)\n--\n\nOnes of x's shape, and of its type unless another is given."),
    method<full_like>("full_like",
        "full_like(x, v, dtype=None)\n--\n\n"
        "The value v in x's shape, and of its type unless another is given.\n\n"
        "OverflowError: a value outside the range of the integer type."),
    method<randn>("randn",
        "randn(shape, mu=0.0, sigma=1.0, dtype='float32')\n--\n\n"
        "Normal random numbers with mean mu and standard deviation sigma. Integers alone are a shape: randn(3, 4) is\n"
        "randn([3, 4]).\n\n"
        "ShapeError: a 0, a negative or a float among several numbers, which could be meant as mu: write\n"
        "randn([3], 0.0, 1.0).\n"
        "ValueError: a negative sigma. DTypeError: not a float type."),
    method<rand>("rand",
        "rand(shape, low=0.0, high=1.0, dtype='float32')\n--\n\n"
        "Uniform random numbers, low included, high not. Integers alone are a shape: rand(3, 4) is rand([3, 4]).\n\n"
        "ShapeError: a 0, a negative or a float among several numbers, which could be meant as low: write\n"
        "rand([3], 0.0, 1.0).\n"
        "ValueError: low is above high, or the difference is no finite number. DTypeError: not a float type."),
    method<randb>("randb",
        "randb(shape, prob, dtype='float32')\n--\n\n1 with probability prob, else 0.\n\n"
        "ValueError: prob outside 0 to 1."),
    method<draw_part>("draw_part",
        "draw_part(kind, first, shape, a, b, dtype)\n--\n\n"
        "As rand(shape, a, b), randn(shape, a, b) or randb(shape, a), by kind, but of a larger random array the elements\n"
        "from the first on, in the order of memory: a range along the last axis has the bits that it has in the whole\n"
        "array, which takes the same place of the generator."),
    method<draw_samples>("draw_samples",
        "draw_samples(start, count)\n--\n\nFrom now on, random arrays of this thread whose last axis has count elements are "
        "parts of those for a larger\nbatch, from sample start on; with a count of 0 no longer."),
    method<seed>("seed",
        "seed(n)\n--\n\nRestarts the random numbers: the same seed and the same calls give the same numbers, on any\n"
        "number of threads, any device and with any timing. n is from 0 to 2**64 - 1."),
    method<random_state>("random_state",
        "random_state()\n--\n\nThe place of the generator of random numbers, two integers: the seed, and how many random arrays were\n"
        "drawn since. See set_random_state."),
    method<set_random_state>("set_random_state",
        "set_random_state(state)\n--\n\nBrings the generator back to where random_state() gave state: what was drawn after it is drawn\n"
        "again. A list does as well as a tuple, as JSON gives it.\n\n"
        "TypeError: not two integers. ValueError: one is outside 0 to 2**64 - 1."),
    method<all_reduce>("all_reduce",
        "all_reduce(arrays)\n--\n\n"
        "The sum of arrays of one shape and type, each on a different device: a list with the sum on each of these\n"
        "devices, in their order. The order of additions depends only on the number of arrays, so the bits are always\n"
        "the same, on all devices.\n\n"
        "ShapeError, DTypeError: shapes or types differ, or are bool; DeviceError: two arrays on one device;\n"
        "ValueError: an empty list."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_creation(py::module_& m) { add_functions(m, creation_functions); }

}  // namespace owl::python
