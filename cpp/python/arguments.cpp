#include "python/arguments.h"

#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/text.h"

namespace owl::python {

namespace {

[[noreturn]] void refuse(const std::string& message) { throw py::type_error(message); }

// The name for messages: the first of "axis|dim".
std::string_view main_name(std::string_view name) { return name.substr(0, name.find('|')); }

bool is_called(PyObject* key, std::string_view name) {
  while (true) {
    const auto first = std::string(main_name(name));
    if (PyUnicode_CompareWithASCIIString(key, first.c_str()) == 0) return true;
    if (first.size() == name.size()) return false;
    name.remove_prefix(first.size() + 1);
  }
}

std::string list_of(std::span<const char* const> names) {
  std::string s;
  for (auto* n : names) (s += s.empty() ? "" : ", ") += main_name(n);
  return s;
}

// False if the integer does not fit.
bool take_int(PyObject* o, const char* what, std::int64_t& value) {
  if (!PyLong_Check(o) && (!PyIndex_Check(o) || is_narray(o)))
    refuse(std::string(what) + " must be an integer, not " + type_name(o));
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(o));
  if (!index) throw py::error_already_set();
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
  return overflow == 0;
}

}  // namespace

void Call::parse(const char* function, std::span<const char* const> names, int required, std::size_t by_position,
                 PyObject** slots) const {
  const auto count = static_cast<Py_ssize_t>(names.size());
  if (positional > static_cast<Py_ssize_t>(by_position))
    refuse(std::string(function) + "() takes at most " + std::to_string(by_position) + " argument" +
           (by_position == 1 ? "" : "s") + " (" + list_of(names.first(by_position)) + "), got " +
           std::to_string(positional) +
           (by_position < names.size() ? "; by name also: " + list_of(names.subspan(by_position)) : ""));
  for (Py_ssize_t i = 0; i < positional; ++i) slots[i] = values[i];
  const Py_ssize_t named = keywords ? PyTuple_GET_SIZE(keywords) : 0;
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* key = PyTuple_GET_ITEM(keywords, k);
    Py_ssize_t i = 0;
    while (i < count && !is_called(key, names[static_cast<std::size_t>(i)])) ++i;
    if (i == count)
      refuse(std::string(function) + "() has no argument '" + to_utf8(key) + "'; it takes " +
             list_of(names));
    if (slots[i]) {
      const std::string name(main_name(names[static_cast<std::size_t>(i)]));
      refuse(std::string(function) + "() got '" + name + "' twice");
    }
    slots[i] = values[positional + k];
  }
  for (int i = 0; i < required; ++i)
    if (!slots[i])
      refuse(std::string(function) + "() needs the argument '" +
             std::string(main_name(names[static_cast<std::size_t>(i)])) + "'; it takes " + list_of(names));
}

void Call::expect_none(const char* function) const {
  if (positional || (keywords && PyTuple_GET_SIZE(keywords))) refuse(std::string(function) + "() takes no arguments");
}

Given::Given(const py::args& args, const py::kwargs& kwargs) : names_(kwargs.size()) {
  for (const auto value : args) values_.push_back(value.ptr());
  for (const auto [name, value] : kwargs) {
    names_[values_.size() - args.size()] = name;
    values_.push_back(value.ptr());
  }
  call_ = {values_.data(), static_cast<Py_ssize_t>(args.size()), names_.ptr()};
}

void add_functions(py::module_& m, PyMethodDef* table, const char* name) {
  const py::str module_name(name);
  for (; table->ml_name; ++table) {
    PyObject* f = PyCFunction_NewEx(table, nullptr, module_name.ptr());
    if (!f) throw py::error_already_set();
    m.attr(table->ml_name) = py::reinterpret_steal<py::object>(f);
  }
}

bool is_integer(PyObject* o) {
  return PyLong_Check(o) || (PyIndex_Check(o) && !PySequence_Check(o)) || numpy_number(o) == NumberKind::kInt;
}

std::int64_t to_int(PyObject* o, const char* what) {
  std::int64_t value;
  if (!take_int(o, what, value)) throw ShapeError(std::string(what) + ": " + shown(o) + " is out of range");
  return value;
}

int to_device_id(PyObject* o, const char* what) {
  if (PyUnicode_Check(o))
    refuse(std::string(what) + " must be an integer, not str; owl.devices() lists the devices with their ids");
  std::int64_t id;
  if (!take_int(o, what, id) || id != static_cast<int>(id))
    throw DeviceError(std::string(what) + ": there is no device " + shown(o));
  return static_cast<int>(id);
}

double to_double(PyObject* o, const char* what) {
  if (PyFloat_CheckExact(o)) return PyFloat_AS_DOUBLE(o);
  if (PyFloat_Check(o) || PyLong_Check(o) || numpy_number(o) != NumberKind::kNone) {
    const double v = PyFloat_AsDouble(o);
    if (v == -1 && PyErr_Occurred()) throw py::error_already_set();
    return v;
  }
  refuse(std::string(what) + " must be a number, not " + type_name(o));
}

bool to_bool(PyObject* o, bool fallback, const char* what) {
  if (!o) return fallback;
  if (!PyBool_Check(o) && numpy_number(o) != NumberKind::kBool)
    refuse(std::string(what) + " must be True or False, not " + type_name(o));
  const int truth = PyObject_IsTrue(o);
  if (truth < 0) throw py::error_already_set();
  return truth != 0;
}

const NArray& to_narray(PyObject* o, const char* what) {
  if (!is_narray(o)) {
    std::string message = std::string(what) + " must be an owl.NArray, not " + type_name(o);
    if (is_array_like(o)) message += "; convert it with owl.from_numpy, which reverses the axes";
    refuse(message);
  }
  return narray(o);
}

void refuse_integers(PyObject* o, const char* what) {
  refuse(std::string(what) + " must be one integer or several, not " + type_name(o));
}

std::vector<std::int64_t> to_ints(PyObject* o, const char* what) {
  if (is_integer(o)) return {to_int(o, what)};
  const bool text = PyUnicode_Check(o) || PyBytes_Check(o);
  if (text || is_narray(o) || !PySequence_Check(o))
    refuse_integers(o, what);
  auto items = py::reinterpret_steal<py::object>(PySequence_Fast(o, what));
  if (!items) throw py::error_already_set();
  std::vector<std::int64_t> result;
  result.reserve(static_cast<std::size_t>(PySequence_Fast_GET_SIZE(items.ptr())));
  for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i) {  // an item's __index__ may modify the list
    const auto item = py::reinterpret_borrow<py::object>(PySequence_Fast_GET_ITEM(items.ptr(), i));
    if (!PyIndex_Check(item.ptr()) || is_narray(item.ptr())) refuse_integers(item.ptr(), what);
    result.push_back(to_int(item.ptr(), what));
  }
  return result;
}

std::vector<std::int64_t> to_axes(PyObject* o, const char* what) {
  if (!given(o)) return {};
  auto axes = to_ints(o, what);
  if (axes.empty()) throw ShapeError(std::string(what) + " is empty; leave it out to take all axes");
  return axes;
}

Shape to_shape(PyObject* o, const char* what) {
  const auto lengths = to_ints(o, what);
  return Shape(std::span<const std::int64_t>(lengths));
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

namespace {

Number whole_number(PyObject* o) {
  auto index = py::reinterpret_steal<py::object>(PyNumber_Index(o));
  if (!index) throw py::error_already_set();
  int overflow = 0;
  Number number(static_cast<std::int64_t>(PyLong_AsLongLongAndOverflow(index.ptr(), &overflow)));
  if (overflow == 0) return number;
  number.fits_int64 = false;
  number.value = PyLong_AsDouble(index.ptr());
  if (number.value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return number;
}

}  // namespace

bool to_number(PyObject* o, Number& number) {
  if (PyFloat_CheckExact(o)) {
    number = PyFloat_AS_DOUBLE(o);
    return true;
  }
  const NumberKind kind = PyBool_Check(o)    ? NumberKind::kBool
                          : PyLong_Check(o)  ? NumberKind::kInt
                          : PyFloat_Check(o) ? NumberKind::kFloat
                                             : numpy_number(o);
  switch (kind) {
    case NumberKind::kNone: return false;
    case NumberKind::kInt: number = whole_number(o); return true;
    case NumberKind::kBool: {
      const int truth = PyObject_IsTrue(o);
      if (truth < 0) throw py::error_already_set();
      number = truth != 0;
      return true;
    }
    case NumberKind::kFloat: break;
  }
  const double value = PyFloat_AsDouble(o);
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  number = value;
  return true;
}

Number exact_number(PyObject* o, const char* what) {
  Number number;
  if (!to_number(o, number)) return to_double(o, what);  // refuses what is no number
  return number;
}

Number fill_value(PyObject* o, DType dtype, const char* what) {
  const Number v = exact_number(o, what);
  if (!v.fits(dtype))
    throw std::overflow_error(std::string(what) + " " + py::str(py::handle(o)).cast<std::string>() +
                              " does not fit " + std::string(name(dtype)));
  return v;
}

}  // namespace owl::python
