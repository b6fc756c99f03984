#include "python/text.h"

namespace owl::python {

namespace {

std::string bytes_of(PyObject* bytes) {
  if (!bytes) throw py::error_already_set();
  const auto owned = py::reinterpret_steal<py::bytes>(bytes);
  return std::string(std::string_view(owned));
}

}  // namespace

std::string to_utf8(py::handle text) {
  Py_ssize_t size = 0;
  if (const char* utf8 = PyUnicode_AsUTF8AndSize(text.ptr(), &size)) return {utf8, static_cast<std::size_t>(size)};
  PyErr_Clear();
  if (PyObject* bytes = PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape")) return bytes_of(bytes);
  PyErr_Clear();
  return bytes_of(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));  // not surrogate-escaped bytes
}

std::string to_path(py::handle path) {
  PyObject* bytes = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &bytes)) throw py::error_already_set();
  return bytes_of(bytes);
}

py::str from_utf8(std::string_view text) {
  PyObject* made = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (!made) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(made);
}

py::list from_utf8(const std::vector<std::string>& texts) {
  py::list made;
  for (const auto& text : texts) made.append(from_utf8(std::string_view(text)));
  return made;
}

void set_error(PyObject* error_class, std::string_view message) noexcept {
  PyObject* text = PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "surrogateescape");
  if (!text) return;  // the failed call has set its own error
  PyErr_SetObject(error_class, text);
  Py_DECREF(text);
}

std::string type_name(PyObject* o) { return Py_TYPE(o)->tp_name; }

std::string shown(PyObject* o) {
  constexpr std::size_t kLongest = 60;
  const auto text = py::reinterpret_steal<py::object>(PyObject_ASCII(o));
  if (!text) {
    if (!PyErr_ExceptionMatches(PyExc_Exception)) throw py::error_already_set();
    PyErr_Clear();  // the object's repr failed
    return "an object of type " + type_name(o);
  }
  const auto s = text.cast<std::string>();
  return s.size() > kLongest ? s.substr(0, kLongest - 3) + "..." : s;
}

}  // namespace owl::python
