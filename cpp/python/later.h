// Releases objects of Python, or of another library, that the engine drops on any thread, under the engine's locks and
// without the GIL.
#pragma once

#include <Python.h>

#include <memory>

namespace owl::python {

// Calls release(what) with the GIL held, soon, from the interpreter's loop.
void release_later(void (*release)(void*), void* what);
// Releases all such objects now. Needs the GIL.
void release_what_is_due();

// A reference to a Python object that may end on any thread.
using SharedObject = std::shared_ptr<PyObject>;
SharedObject share(PyObject* o);  // adds a reference

}  // namespace owl::python
