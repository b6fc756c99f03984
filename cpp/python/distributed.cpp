// MPI jobs: what owl.distributed is made of.
#include <pybind11/stl.h>

#include "backend/mpi/backend.h"
#include "ops/distributed.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/narray_type.h"
#include "python/source.h"
#include "runtime/engine.h"

namespace owl::python {

namespace {

mpi::Group* ranks = nullptr;  // as long as the process

py::list list_of_results(std::vector<NArray> arrays) {
  py::list all;
  for (NArray& each : arrays) {
    const auto wrapped = py::reinterpret_steal<py::object>(wrap(std::move(each)));
    if (!wrapped) throw py::error_already_set();
    all.append(wrapped);
  }
  return all;
}

std::vector<NArray> noted_operands(const py::handle arrays, const char* function) {
  auto all = list_of_arrays(arrays.ptr(), function);
  note_source();
  return all;
}

py::tuple start(const std::string& path, double warn_after, const std::string& version) {
  {
    WithoutGil starting_waits_for_all_ranks;
    ranks = new mpi::Group(mpi::open_library(path), warn_after, version);
  }
  if (ranks->size() > 1) {
    auto device = mpi::make_device(*ranks);
    Device& link = *device;
    Engine::get().add_link(std::move(device));
    distributed::join(link, ranks->rank(), ranks->size());
  }
  return py::make_tuple(ranks->rank(), ranks->size());
}

distributed::Combine combine_of(const std::string& name) {
  return name == "max" ? distributed::Combine::kMax : name == "min" ? distributed::Combine::kMin : distributed::Combine::kSum;
}

distributed::RankParams params_of(const std::string& names, bool anywhere) {
  distributed::RankParams how;
  how.names = names;
  how.anywhere = anywhere;
  return how;
}

}  // namespace

void bind_distributed(py::module_& parent) {
  auto m = parent.def_submodule("_distributed", "What owl.distributed is made of.");
  m.def("open", [](const std::string& path) {
    const auto& library = mpi::open_library(path);
    return py::make_tuple(library.family, library.version, library.path);
  });
  m.def("start", &start);
  m.def("all_reduce", [](const py::object& arrays, const std::string& names, bool anywhere, const std::string& op) {
    auto how = params_of(names, anywhere);
    how.combine = combine_of(op);
    return list_of_results(distributed::all_reduce(noted_operands(arrays, "all_reduce"), std::move(how)));
  });
  m.def("reduce_scatter", [](const py::object& arrays, const std::string& names, bool anywhere) {
    return list_of_results(distributed::reduce_scatter(noted_operands(arrays, "reduce_scatter"), params_of(names, anywhere)));
  });
  m.def("all_gather", [](const py::object& arrays, const std::string& names, bool anywhere) {
    return list_of_results(distributed::all_gather(noted_operands(arrays, "all_gather"), params_of(names, anywhere)));
  });
  m.def("broadcast", [](const py::object& arrays, const std::string& names, bool anywhere, int root) {
    auto how = params_of(names, anywhere);
    how.root = root;
    return list_of_results(distributed::broadcast(noted_operands(arrays, "broadcast"), std::move(how)));
  });
  m.def("barrier", [] {
    note_source();
    return list_of_results({distributed::barrier()});
  });
  m.def("end", [](const std::string& failure) {
    current_source = {};
    return list_of_results({distributed::end(failure)});
  });
  m.def("give_up", [] { ranks->give_up(); });
  m.def("is_broken", [] { return ranks->is_broken(); });
  m.def("finalize", [] { ranks->finalize(); }, py::call_guard<py::gil_scoped_release>());
  m.def("abort", [] { ranks->abort(); }, py::call_guard<py::gil_scoped_release>());
}

}  // namespace owl::python
