// The parts of the module: one function for each area.
#pragma once

#include <pybind11/pybind11.h>

namespace owl::python {

namespace py = pybind11;

void bind_errors(py::module_& m);          // the exception classes
void bind_numpy(py::module_& m);           // dtypes
void bind_numpy_exchange(py::module_& m);  // from_numpy
void bind_narray(py::module_& m);          // the class NArray
void bind_creation(py::module_& m);        // zeros, randn ...
void bind_rearrange(py::module_& m);       // concat, split, roll ...
void bind_array_ops(py::module_& m);       // matmul, take, sort ...
void bind_dlpack(py::module_& m);          // from_dlpack
void bind_elewise(py::module_& m);         // the submodule elewise
void bind_conv(py::module_& m);            // the submodule conv
void bind_norm(py::module_& m);            // layer_norm, batch_norm
void bind_device(py::module_& m);          // devices, waiting, memory, counters
void bind_inspect(py::module_& m);         // explain, dot, profile, trace_nan
void bind_user_op(py::module_& m);         // operations defined in Python
void bind_tape(py::module_& m);            // gradients
void bind_distributed(py::module_& m);     // MPI jobs
void bind_source(py::module_& m);          // the script's line that records an operation

}  // namespace owl::python
