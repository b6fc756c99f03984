// Giving things back to Python, or to another library, from wherever the engine lets go of them: on any thread, under
// the engine's locks, without Python's.
#pragma once

#include <Python.h>

#include <memory>

namespace owl::python {

// Calls release(what) with Python's lock held: soon, from the interpreter's own loop.
void release_later(void (*release)(void*), void* what);
// What is due, now. Needs the lock.
void release_what_is_due();

// A reference to a Python object that may end on any thread.
using SharedObject = std::shared_ptr<PyObject>;
SharedObject share(PyObject* o);  // takes a reference of its own

}  // namespace owl::python
