// What owl.Tape is built on: a tape over flat lists of arrays.
#include <pybind11/stl.h>

#include "autograd/tape.h"
#include "graph/record.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/caster.h"
#include "python/source.h"

namespace owl::python {

namespace {

PyObject* stop_gradient(PyObject*, const Call& call) {
  const auto [x] = call.get("stop_gradient", {"x"});
  const NArray& array = to_narray(x, "stop_gradient: x");
  note_source();
  return wrap(owl::stop_gradient(array));
}

PyObject* alias(PyObject*, const Call& call) {
  const auto [x] = call.get("alias", {"x"});
  const NArray& array = to_narray(x, "alias: x");
  note_source();
  return wrap(record_alias(array));
}

std::vector<NArray> gradient(TapeState& tape, const NArray& y, const std::vector<NArray>& sources,
                             std::vector<std::string> names, const std::optional<NArray>& seed, bool zeros) {
  note_source();
  return tape.gradient({y, seed.value_or(NArray()), sources, std::move(names), zeros});
}

// What owl.checkpoint calls a function in.
class Scope {
 public:
  void enter() { scope_.emplace(); }
  void exit(const py::args&) { scope_.reset(); }

 private:
  std::optional<detail::CheckpointScope> scope_;
};

PyMethodDef tape_functions[] = {
    method<stop_gradient>("stop_gradient",
        "stop_gradient(x)\n--\n\n"
        "x, a constant to every tape: no gradient flows back through the result. Copies nothing and never waits."),
    method<alias>("alias",
        "alias(x)\n--\n\n"
        "x as an array of its own, which tapes tell from x."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_tape(py::module_& m) {
  py::class_<TapeState, std::shared_ptr<TapeState>>(m, "TapeState", "What owl.Tape is built on.")
      .def(py::init<bool>(), py::arg("persistent"))
      .def("open", &TapeState::open)
      .def("close", &TapeState::close)
      .def("gradient", gradient, py::arg("y"), py::arg("sources"), py::arg("names"), py::arg("seed"), py::arg("zeros"));
  py::class_<Scope>(m, "CheckpointScope", "What owl.checkpoint calls a function in.")
      .def(py::init<>())
      .def("__enter__", &Scope::enter)
      .def("__exit__", &Scope::exit);
  add_functions(m, tape_functions);
}

}  // namespace owl::python
