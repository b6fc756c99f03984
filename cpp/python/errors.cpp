#include "python/errors.h"

#include "owl/error.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/source.h"
#include "python/text.h"
#include "base/failure.h"
#include "python/later.h"

namespace owl::python {

namespace {

// The Python classes; created once, never freed.
struct ErrorClasses {
  PyObject *error, *shape, *dtype, *device, *index, *data, *memory, *nan;
} classes;

PyObject* class_of(const Error& e) {
  return with_kind_of(e, []<class E>() -> PyObject* {
    if constexpr (std::is_same_v<E, ShapeError>) return classes.shape;
    else if constexpr (std::is_same_v<E, DTypeError>) return classes.dtype;
    else if constexpr (std::is_same_v<E, DeviceError>) return classes.device;
    else if constexpr (std::is_same_v<E, IndexError>) return classes.index;
    else if constexpr (std::is_same_v<E, DataError>) return classes.data;
    else if constexpr (std::is_same_v<E, OutOfMemoryError>) return classes.memory;
    else if constexpr (std::is_same_v<E, NaNError>) return classes.nan;
    else if constexpr (std::is_same_v<E, OverflowError>) return PyExc_OverflowError;
    else if constexpr (std::is_same_v<E, ValueError>) return PyExc_ValueError;
    else return classes.error;
  });
}

// A task's failure is raised far from the line that recorded the operation, so the message names that line.
std::string place_of(const Error& e) {
  const auto* carrier = dynamic_cast<const FailureCarrier*>(&e);
  if (!carrier || !carrier->failure) return "";
  const Failure& failure = *carrier->failure;
  const std::string place = describe(failure.source);
  if (!*failure.op && place.empty()) return "";
  std::string text = " (in operation";
  if (*failure.op) text += std::string(" '") + failure.op + "'";
  if (!place.empty()) text += " recorded at " + place;
  return text + ")";
}

// `raise class(message) from cause`.
void set_error_with_cause(PyObject* error_class, const std::string& message, const void* exception) {
  py::object made = py::reinterpret_borrow<py::object>(error_class)(from_utf8(message));
  auto* cause = static_cast<PyObject*>(const_cast<void*>(exception));
  PyException_SetCause(made.ptr(), Py_NewRef(cause));
  PyErr_SetObject(error_class, made.ptr());
}

void set_owl_error(const Error& e) noexcept {
  stand_still_if_leaving();
  try {
    const std::string message = e.what() + place_of(e);
    const auto* carrier = dynamic_cast<const FailureCarrier*>(&e);
    const auto cause = carrier && carrier->failure ? host_cause_of(*carrier->failure) : nullptr;
    if (cause) set_error_with_cause(class_of(e), message, cause.get());
    else set_error(class_of(e), message);
  } catch (...) {
    set_error(class_of(e), e.what());
  }
}

void set_interrupted() noexcept {
  // The signal's handler has already raised its exception, KeyboardInterrupt unless the script has replaced it.
  if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
}

PyObject* make_class(py::module_& m, const char* name, const char* doc, PyObject* builtin) {
  py::tuple bases = py::make_tuple(py::handle(builtin));
  if (classes.error) bases = py::make_tuple(py::handle(classes.error), py::handle(builtin));
  PyObject* made = PyErr_NewExceptionWithDoc((std::string("owl.") + name).c_str(), doc, bases.ptr(), nullptr);
  if (!made) throw py::error_already_set();
  m.attr(name) = py::handle(made);
  return made;
}

}  // namespace

void set_python_error() noexcept {
  try {
    throw;
  } catch (py::error_already_set& e) {
    e.restore();
  } catch (const py::cast_error&) {
    PyErr_SetString(PyExc_TypeError, "owl: an argument has a type or a character that this function does not accept");
  } catch (const py::type_error& e) {
    set_error(PyExc_TypeError, e.what());
  } catch (const py::value_error& e) {
    set_error(PyExc_ValueError, e.what());
  } catch (const py::builtin_exception& e) {
    e.set_error();
  } catch (const Interrupted&) {
    set_interrupted();
  } catch (const Error& e) {
    set_owl_error(e);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::overflow_error& e) {
    set_error(PyExc_OverflowError, e.what());
  } catch (const std::exception& e) {
    set_error(PyExc_RuntimeError, std::string("owl: internal error: ") + e.what());
  } catch (...) {
    PyErr_SetString(PyExc_RuntimeError, "owl: internal error");
  }
}

std::exception_ptr caused_error(PyObject* exception, const std::string& message) {
  auto kept = share(exception);
  const auto made = [&]<class E>() { return std::make_exception_ptr(Caused<E>(message, std::move(kept))); };
  const auto is = [&](PyObject* type) { return PyErr_GivenExceptionMatches(exception, type); };
  if (is(classes.shape)) return made.operator()<ShapeError>();
  if (is(classes.dtype)) return made.operator()<DTypeError>();
  if (is(classes.device)) return made.operator()<DeviceError>();
  if (is(classes.index)) return made.operator()<IndexError>();
  if (is(classes.data)) return made.operator()<DataError>();
  if (is(classes.memory)) return made.operator()<OutOfMemoryError>();
  if (is(classes.nan)) return made.operator()<NaNError>();
  return made.operator()<Error>();
}

void bind_errors(py::module_& m) {
  classes.error = make_class(m, "Error", "The base class of owl's errors.", PyExc_Exception);
  classes.shape = make_class(m, "ShapeError", "Shapes, axes or sizes do not match.", PyExc_ValueError);
  classes.dtype = make_class(m, "DTypeError", "The operation does not take this element type.", PyExc_TypeError);
  classes.device = make_class(m, "DeviceError", "A device is missing or has failed.", PyExc_RuntimeError);
  classes.index = make_class(m, "IndexError", "An index is outside its axis.", PyExc_IndexError);
  classes.data = make_class(m, "DataError", "A data file is missing, truncated or malformed.",
                            PyExc_ValueError);
  classes.memory = make_class(m, "OutOfMemoryError", "The device's memory or its limit is exhausted.",
                              PyExc_MemoryError);
  classes.nan = make_class(m, "NaNError", "An operation made a NaN or an infinity from finite values (owl.trace_nan).",
                           PyExc_ArithmeticError);

  py::register_exception_translator([](std::exception_ptr in_flight) {
    try {
      if (in_flight) std::rethrow_exception(in_flight);
    } catch (const Interrupted&) {
      set_interrupted();
    } catch (const Error& e) {
      set_owl_error(e);
    }
  });
  install_runtime_hooks();
}

}  // namespace owl::python
