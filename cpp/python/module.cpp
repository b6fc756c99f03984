// The Python module owl._owl: a thin layer over the C++ API.
#include "python/bind.h"

static int pybind11_exec__owl(PyObject* module);

PYBIND11_MODULE_EXEC(_owl, m) {
  using namespace owl::python;
  m.doc() = "The engine of owl; use it through the package owl.";
  m.attr("__version__") = OWL_VERSION;
  bind_errors(m);
  bind_source(m);
  bind_numpy(m);
  bind_numpy_exchange(m);
  bind_narray(m);
  bind_creation(m);
  bind_rearrange(m);
  bind_array_ops(m);
  bind_dlpack(m);
  bind_elewise(m);
  bind_conv(m);
  bind_norm(m);
  bind_device(m);
  bind_inspect(m);
  bind_user_op(m);
  bind_tape(m);
  bind_distributed(m);
}

namespace {

// Before any use of pybind11, which in another interpreter would wait for a lock that this thread holds.
int load(PyObject* module) {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return pybind11_exec__owl(module);
  PyErr_SetString(PyExc_ImportError,
                  "owl cannot be imported in a sub-interpreter: its engine, whose worker threads call into Python, "
                  "belongs to the main interpreter; use threads or processes there instead");
  return -1;
}

PyModuleDef_Slot slots[] = {
    {Py_mod_exec, reinterpret_cast<void*>(&load)},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, nullptr},
};
PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_owl", nullptr, 0, nullptr, slots, nullptr, nullptr, nullptr};

}  // namespace

extern "C" PYBIND11_EXPORT PyObject* PyInit__owl() { return PyModuleDef_Init(&definition); }
