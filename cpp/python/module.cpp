// The Python module owl._owl: a thin layer over the C++ API.
#include "python/bind.h"

PYBIND11_MODULE(_owl, m) {
  using namespace owl::python;
  m.doc() = "The engine of owl; use it through the package owl.";
  m.attr("__version__") = OWL_VERSION;
  bind_errors(m);
  bind_source(m);
  bind_numpy(m);
  bind_narray(m);
  bind_creation(m);
  bind_dlpack(m);
  bind_elewise(m);
  bind_conv(m);
  bind_device(m);
  bind_inspect(m);
  bind_user_op(m);
}
