// Parses arguments without pybind11, whose messages name C++ types. All functions here throw the exceptions that become
// Python errors.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "owl/narray.h"
#include "python/errors.h"

namespace owl::python {

namespace py = pybind11;

// The arguments of one vectorcall.
struct Call {
  PyObject* const* values;
  Py_ssize_t positional;
  PyObject* keywords;  // a tuple of names, or null

  // Sorts the arguments by name into `slots` (borrowed; null for one that is not given). Those after the first
  // `by_position` must be given by name. "axis|dim": an argument with the alias dim=.
  void parse(const char* function, std::span<const char* const> names, int required, std::size_t by_position,
             PyObject** slots) const;

  template <std::size_t N>
  std::array<PyObject*, N> get(const char* function, const char* const (&names)[N], int required = N,
                               std::size_t by_position = N) const {
    std::array<PyObject*, N> slots{};
    parse(function, std::span<const char* const>(names, N), required, by_position, slots.data());
    return slots;
  }
  void expect_none(const char* function) const;
};

// The arguments that pybind11 passes to a function of (py::args, py::kwargs).
class Given {
 public:
  Given(const py::args& args, const py::kwargs& kwargs);
  const Call* operator->() const { return &call_; }

 private:
  std::vector<PyObject*> values_;  // borrowed
  py::tuple names_;
  Call call_;
};

// The entry of a method table for a function that may throw.
template <PyObject* (*Function)(PyObject* self, const Call& call)>
PyObject* fast(PyObject* self, PyObject* const* values, Py_ssize_t positional, PyObject* keywords) noexcept {
  return guarded([&] { return Function(self, Call{values, positional, keywords}); });
}
template <PyObject* (*Function)(PyObject* self, const Call& call)>
PyMethodDef method(const char* name, const char* doc) {
  auto* entry = reinterpret_cast<void (*)()>(&fast<Function>);  // the cast that CPython's own tables use
  return {name, reinterpret_cast<PyCFunction>(entry), METH_FASTCALL | METH_KEYWORDS, doc};
}
// Adds the functions of a table, which ends with a null name and must never be freed, to the module, whose name for
// scripts is `name`.
void add_functions(py::module_& m, PyMethodDef* table, const char* name = "owl");

inline bool given(PyObject* o) { return o && o != Py_None; }

// `what` names the argument in messages, e.g. "zeros: shape".
bool is_integer(PyObject* o);  // a Python or NumPy integer
std::int64_t to_int(PyObject* o, const char* what);
int to_device_id(PyObject* o, const char* what);
double to_double(PyObject* o, const char* what);
bool to_bool(PyObject* o, bool fallback, const char* what);  // True or False
const NArray& to_narray(PyObject* o, const char* what);
std::vector<std::int64_t> to_ints(PyObject* o, const char* what);  // a list, a tuple or one integer
[[noreturn]] void refuse_integers(PyObject* o, const char* what);
std::vector<std::int64_t> to_axes(PyObject* o, const char* what);  // the same; None gives an empty vector, for all axes
Shape to_shape(PyObject* o, const char* what);
std::vector<NArray> list_of_arrays(PyObject* arrays, const std::string& function);
// A Python or NumPy number, an int with all its digits; false for any other object.
bool to_number(PyObject* o, Number& number);
Number exact_number(PyObject* o, const char* what);  // the same; refuses what is no number
// A value for an array of this type. Checks integers, because one outside the range of the type would change silently.
Number fill_value(PyObject* o, DType dtype, const char* what);

}  // namespace owl::python
