// Arrays from NumPy and to NumPy: copies with the axes reversed.
#pragma once

#include <pybind11/numpy.h>

#include "owl/narray.h"

namespace owl::python {

namespace py = pybind11;

// Whether the value is ready in host memory.
bool readable_on_host(const NArray& x);
// Waits; a new, writable NumPy array with the axes reversed.
py::array to_numpy(const NArray& x);
// The same of an array that the caller gives up. It gets the memory of a large value that nothing else refers to, and x
// is empty then.
py::array to_numpy(NArray&& x);

}  // namespace owl::python
