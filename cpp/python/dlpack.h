// Zero-copy exchange with other array libraries: github.com/dmlc/dlpack, versions 0.8 (unversioned) and 1, and
// __cuda_array_interface__, version 3.
//
// GPU memory is exchanged without waiting for values: the consumer's stream waits for the value's producer, and after
// the memory is returned, the owner's stream waits for the consumer's.
#pragma once

#include "python/arguments.h"

namespace owl::python {

// The methods __dlpack__, __dlpack_device__ and to_cupy of NArray, and its property __cuda_array_interface__.
PyObject* dlpack(PyObject* self, const Call& call);
PyObject* dlpack_device(PyObject* self, const Call& call);
PyObject* to_cupy(PyObject* self, const Call& call);
PyObject* cuda_array_interface(PyObject* self, void*) noexcept;

}  // namespace owl::python
