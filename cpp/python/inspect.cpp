// owl.explain, owl.draw, owl.profile, owl.trace_nan: owl/inspection.py has the functions that users call.
#include "owl/inspect.h"

#include <pybind11/stl.h>

#include "python/bind.h"
#include "python/gil.h"
#include "python/narray_type.h"
#include "python/text.h"

namespace owl::python {

namespace {

std::vector<NArray> arrays_of(const py::iterable& values) {
  std::vector<NArray> arrays;
  for (auto v : values) {
    if (!is_narray(v.ptr()))
      throw py::type_error("expected an NArray, not " + to_utf8(py::type::of(v).attr("__name__")));
    arrays.push_back(narray(v.ptr()));
  }
  return arrays;
}

py::tuple explained(const std::optional<py::iterable>& values) {
  const auto arrays = values ? arrays_of(*values) : std::vector<NArray>();
  const Plan plan = values ? explain(arrays) : explain();
  py::list tasks;
  for (const auto& t : plan.tasks) {
    py::dict d;
    d["kind"] = t.kind;
    d["device"] = t.device;
    d["shape"] = std::vector<std::int64_t>(t.shape.begin(), t.shape.end());
    d["channels_last"] = t.channels_last;
    d["operations"] = from_utf8(t.operations);
    d["places"] = from_utf8(t.places);
    d["bytes_read"] = t.bytes_read;
    d["bytes_written"] = t.bytes_written;
    d["outputs"] = t.outputs;
    d["alike"] = t.alike;
    d["after"] = t.after;
    d["reuses"] = t.reuses < 0 ? py::object(py::none()) : py::object(py::int_(t.reuses));
    d["cost_us"] = t.cost_us;
    tasks.append(d);
  }
  return py::make_tuple(tasks, from_utf8(plan.str()));
}

}  // namespace

void bind_inspect(py::module_& m) {
  m.def("explain", &explained, py::arg("values"), "The tasks as dicts, and the table; None: for everything recorded.");
  m.def("draw", [](const py::iterable& values) { return from_utf8(draw(arrays_of(values))); }, py::arg("values"));
  m.def("eager", &eager, py::arg("on"));
  m.def("is_eager", &is_eager);
  m.def("trace_nan", &trace_nan, py::arg("on"));
  m.def("tracing_nan", &tracing_nan);
  m.def("start_profile", [](const py::object& path) { start_profile(to_path(path)); }, py::arg("path"));
  m.def("stop_profile", [] {
    WithoutGil others_run;
    stop_profile();
  });
  m.def("describe_engine", [] { return from_utf8(describe_engine()); });
  py::class_<HoldWindow>(m, "HoldWindow", "Until it is released, only a wait takes operations from the window.")
      .def(py::init([] {
        WithoutGil workers_may_need_it;
        return std::make_unique<HoldWindow>();
      }))
      .def("release", [](HoldWindow& hold) {
        WithoutGil workers_may_need_it;
        hold.release();
      });
}

}  // namespace owl::python
