// C++ exceptions to Python errors.
#pragma once

#include <Python.h>

#include <utility>

#include "graph/node.h"

namespace owl::python {

// Sets the Python error that matches the C++ exception in flight. To be called in a catch block only.
void set_python_error() noexcept;

// Which of owl's errors a Python exception is; kOther for everything else. Needs the GIL.
Failure::Kind kind_of(PyObject* exception);

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
