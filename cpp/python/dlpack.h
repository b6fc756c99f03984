// Zero-copy exchange with other array libraries: github.com/dmlc/dlpack, versions 0.8 (unversioned) and 1.
#pragma once

#include "python/arguments.h"

namespace owl::python {

// The methods __dlpack__ and __dlpack_device__ of NArray.
PyObject* dlpack(PyObject* self, const Call& call);
PyObject* dlpack_device(PyObject* self, const Call& call);

}  // namespace owl::python
