// C++ exceptions to Python errors.
#pragma once

#include <Python.h>

#include <exception>
#include <string>
#include <utility>

namespace owl::python {

// Sets the Python error that matches the C++ exception in flight. To be called in a catch block only.
void set_python_error() noexcept;

// What a kernel throws whose Python code raised: the owl error that the exception is, Error for all others, with the
// exception as its cause. Needs the GIL.
std::exception_ptr caused_error(PyObject* exception, const std::string& message);

// Runs the body of a C slot: an exception becomes the Python error and null.
template <class Body> PyObject* guarded(Body&& body) noexcept {
  try {
    return std::forward<Body>(body)();
  } catch (...) {
    set_python_error();
    return nullptr;
  }
}

}  // namespace owl::python
