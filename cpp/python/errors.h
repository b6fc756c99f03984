// C++ exceptions to Python errors.
#pragma once

#include <Python.h>

#include <exception>
#include <string>
#include <utility>

namespace owl::python {

// Sets the Python error for the current C++ exception. Call it only in a catch block.
void set_python_error() noexcept;

// The C++ exception for a kernel whose Python code raised `exception`: the same owl error, or Error for any other
// class, with `exception` as its cause. Needs the GIL.
std::exception_ptr caused_error(PyObject* exception, const std::string& message);

// Runs the body of a C slot; on an exception sets the Python error and returns null.
template <class Body> PyObject* guarded(Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

}  // namespace owl::python
