// Text between Python and C++. File names may be invalid text: their bytes pass through unchanged, as in Python itself
// (PEP 383, surrogateescape).
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>
#include <vector>

namespace owl::python {

namespace py = pybind11;

std::string to_utf8(py::handle text);        // a str
std::string to_path(py::handle path);        // a str, bytes or os.PathLike, for the file system
py::str from_utf8(std::string_view text);
py::list from_utf8(const std::vector<std::string>& texts);
void set_error(PyObject* error_class, std::string_view message) noexcept;  // the Python error of this thread

std::string type_name(PyObject* o);
std::string shown(PyObject* o);  // its repr, truncated if long

}  // namespace owl::python
