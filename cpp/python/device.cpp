// Devices, waiting, memory and counters.
#include "owl/device.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "backend/gpu.h"
#include "digits/digits.h"
#include "ops/nn.h"
#include "owl/error.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/text.h"
#include "runtime/engine.h"
#include "runtime/scheduler.h"

namespace owl::python {

namespace {

std::optional<int> device_or_all(PyObject* o, const char* what) {
  return given(o) ? std::optional(to_device_id(o, what)) : std::nullopt;
}

// Before the first use of a GPU: adds the library folders of NVIDIA's packages from PyPI.
void find_gpu_libraries() {
  static bool found = false;
  if (found) return;
  std::vector<std::string> folders;
  for (const py::handle folder : py::module_::import("owl._cuda").attr("library_folders")())
    folders.push_back(to_path(folder));
  gpu::set_library_folders(std::move(folders));
  found = true;
}

PyObject* create_gpu(PyObject*, const Call& call) {
  const auto [i] = call.get("create_gpu_device", {"i"});
  const int index = to_device_id(i, "create_gpu_device: i");
  find_gpu_libraries();
  const int id = [index] {
    WithoutGil opening_takes_a_while;
    return create_gpu_device(index);
  }();
  return PyLong_FromLong(id);
}

PyObject* choose_device(PyObject*, const Call& call) {
  const auto [id] = call.get("set_device", {"id"});
  set_device(to_device_id(id, "set_device: id"));
  Py_RETURN_NONE;
}

// A limit in bytes; None or 0 is no limit.
PyObject* limit_memory(PyObject*, const Call& call) {
  const auto [bytes, device] = call.get("set_memory_limit", {"bytes", "device"}, 1);
  const auto limit = given(bytes) ? to_int(bytes, "set_memory_limit: bytes") : 0;
  if (limit < 0) throw py::value_error("set_memory_limit: bytes must not be negative");
  set_memory_limit(static_cast<std::size_t>(limit), device_or_all(device, "set_memory_limit: device"));
  Py_RETURN_NONE;
}

PyObject* memory(PyObject*, const Call& call) {
  const auto [device] = call.get("memory_stats", {"device"}, 0);
  const MemoryStats s = memory_stats(device_or_all(device, "memory_stats: device"));
  py::dict d;
  d["allocated"] = s.allocated;
  d["cached"] = s.cached;
  d["peak"] = s.peak;
  d["limit"] = s.limit;
  return d.release().ptr();
}

PyObject* stats_dict(PyObject*, const Call& call) {
  call.expect_none("stats");
  const Stats s = stats();
  py::dict d;
  d["live_nodes"] = s.live_nodes;
  d["live_storages"] = s.live_storages;
  d["window_nodes"] = s.window_nodes;
  d["tasks_in_flight"] = s.tasks_in_flight;
  d["recorded"] = s.recorded;
  d["dropped"] = s.dropped;
  d["kernels"] = s.kernels;
  d["fused_operations"] = s.fused_operations;
  d["in_place"] = s.in_place;
  d["copies"] = s.copies;
  d["buffers_written"] = s.buffers_written;
  d["bytes_written"] = s.bytes_written;
  d["tasks_skipped"] = s.tasks_skipped;
  d["inline_tasks"] = s.inline_tasks;
  d["waiter_tasks"] = s.waiter_tasks;
  d["wakes"] = s.wakes;
  d["conversions"] = s.conversions;
  d["plans_reused"] = s.plans_reused;
  d["graph_captures"] = s.graph_captures;
  d["graph_replays"] = s.graph_replays;
  return d.release().ptr();
}


PyObject* choose_precision(PyObject*, const Call& call) {
  const auto [precision] = call.get("set_matmul_precision", {"precision"});
  for (int i = 0; PyUnicode_Check(precision) && i < 3; ++i)
    if (PyUnicode_CompareWithASCIIString(precision, kPrecisionNames[i]) == 0) {
      set_matmul_precision(static_cast<MatmulPrecision>(i));
      Py_RETURN_NONE;
    }
  throw py::value_error("set_matmul_precision: precision must be 'float32', 'tf32' or 'bfloat16', not " +
                        to_utf8(py::repr(py::handle(precision))));
}

PyObject* precision(PyObject*, const Call& call) {
  call.expect_none("get_matmul_precision");
  return PyUnicode_FromString(kPrecisionNames[static_cast<int>(matmul_precision())]);
}

PyObject* create_cpu(PyObject*, const Call& call) {
  call.expect_none("create_cpu_device");
  return PyLong_FromLong(create_cpu_device());
}

PyObject* gpu_count(PyObject*, const Call& call) {
  call.expect_none("get_gpu_device_count");
  find_gpu_libraries();
  return PyLong_FromLong(get_gpu_device_count());
}

PyObject* cuda(PyObject*, const Call& call) {
  call.expect_none("has_cuda");
  find_gpu_libraries();
  return PyBool_FromLong(has_cuda());
}

PyObject* current(PyObject*, const Call& call) {
  call.expect_none("current_device");
  return PyLong_FromLong(current_device());
}

PyObject* all_devices(PyObject*, const Call& call) {
  call.expect_none("devices");
  return py::cast(devices()).release().ptr();
}

PyObject* trim(PyObject*, const Call& call) {
  call.expect_none("empty_cache");
  empty_cache();
  Py_RETURN_NONE;
}

PyObject* wait(PyObject*, const Call& call) {
  call.expect_none("wait_for_all");
  wait_for_all();
  Py_RETURN_NONE;
}

PyObject* initialize(PyObject*, const Call& call) {
  call.get("initialize", {"argv"}, 0);
  Py_RETURN_NONE;
}

PyMethodDef device_functions[] = {
    method<initialize>("initialize",
        "initialize(argv=None)\n--\n\nDoes nothing: owl needs no call. Kept because Minerva's scripts call it."),
    method<create_cpu>("create_cpu_device",
        "create_cpu_device()\n--\n\n"
        "Creates a CPU device with its own threads and memory; returns its id. Device 0, a CPU device, always exists."),
    method<gpu_count>("get_gpu_device_count",
        "get_gpu_device_count()\n--\n\nThe number of GPUs, including simulated ones."),
    method<cuda>("has_cuda", "has_cuda()\n--\n\nWhether owl can compute on a CUDA GPU here."),
    method<current>("current_device",
        "current_device()\n--\n\nThe id of this thread's current device."),
    method<all_devices>("devices", "devices()\n--\n\nAll devices, as a list of DeviceInfo."),
    method<wait>("wait_for_all",
        "wait_for_all()\n--\n\n"
        "Waits until all recorded values that a name still refers to are computed; raises the earliest of their\n"
        "errors that it has not raised before. Waiting for a failed value itself always raises its error."),
    method<stats_dict>("stats", "stats()\n--\n\nThe engine's counters since its start, by name."),
    method<trim>("empty_cache", "empty_cache()\n--\n\nReturns cached memory, which no value uses, to the system."),
    method<create_gpu>("create_gpu_device",
        "create_gpu_device(i)\n--\n\nCreates the device of GPU number i; returns its id.\n\n"
        "DeviceError: there is no such GPU."),
    method<choose_device>("set_device",
        "set_device(id)\n--\n\n"
        "Makes a device current: it computes the operations that this thread records from now on. Each thread starts\n"
        "on device 0.\n\n"
        "DeviceError: there is no such device."),
    method<limit_memory>("set_memory_limit",
        "set_memory_limit(bytes, device=None)\n--\n\n"
        "Limits the memory of each device (or only of the given one) to this many bytes; 0 or None: no limit. At the\n"
        "limit owl waits for running work, trims its cache and tries again before it raises OutOfMemoryError."),
    method<memory>("memory_stats",
        "memory_stats(device=None)\n--\n\n"
        "The bytes 'allocated', 'cached', their 'peak' and the 'limit' (0: none) of a device, or of all together."),
    method<choose_precision>("set_matmul_precision",
        "set_matmul_precision(precision)\n--\n\n"
        "How GPUs compute the float32 matrix products and convolutions that are recorded from now on, by any thread:\n"
        "'float32', the default, with unrounded operands; 'tf32' or 'bfloat16' with operands rounded to 10 or 7 bits\n"
        "of mantissa, which is several times as fast. Sums and results stay float32. float64 and CPU devices never\n"
        "round operands.\n\nValueError: another word."),
    method<precision>("get_matmul_precision",
        "get_matmul_precision()\n--\n\nThe last argument of set_matmul_precision; at first 'float32'."),
    {nullptr, nullptr, 0, nullptr},
};

void bind_devices(py::module_& m) {
  py::class_<DeviceInfo>(m, "DeviceInfo", "A device's description in owl.devices().")
      .def_readonly("id", &DeviceInfo::id, "The id, as for set_device and x.device.")
      .def_readonly("kind", &DeviceInfo::kind, "'cpu', 'gpu' or 'null'.")
      .def_readonly("name", &DeviceInfo::name, "A description, for example 'CPU, 2 threads'.")
      .def_readonly("threads", &DeviceInfo::threads, "The number of its threads.")
      .def_readonly("simulated", &DeviceInfo::simulated, "Whether it is a simulated GPU.")
      .def("__repr__", [](const DeviceInfo& d) {
        return py::str("DeviceInfo(id={}, kind={!r}, name={!r}, threads={}, simulated={})")
            .format(d.id, d.kind, d.name, d.threads, d.simulated);
      });
  m.attr("DeviceInfo").attr("__module__") = "owl";

  m.def("create_null_device", &create_null_device,
        "Creates a device that plans but runs nothing, for tests; returns its id.");
}

void bind_engine(py::module_& m) {
  m.def("set_window", [](std::size_t count, std::int64_t idle_us) {
    WithoutGil workers_may_need_it;
    set_window(count, idle_us);
  }, py::arg("count"), py::arg("idle_us"),
        "The number of operations that the window keeps, and the microseconds without a new operation after which an\n"
        "idle worker plans all of them (negative: never). For tests.");
  m.def("set_batch_alike", [](bool on) { planner::batch_alike = on; }, py::arg("on"),
        "Whether equal programs over small arrays become one task. For tests.");
  m.def("set_fault", &set_fault, py::arg("alloc"), py::arg("op"),
        "Makes the alloc-th request for memory and the op-th task that starts fail (0: none). For tests.");
  m.def("leave", &leave, "Stops the engine, at the end of the process.");
}

py::tuple digits(std::uint64_t seed, std::int64_t count, int threads) {
  if (count < 0) throw py::value_error("make_digits: count must not be negative");
  py::array_t<std::uint8_t> images({static_cast<py::ssize_t>(count), py::ssize_t{kDigitSide}, py::ssize_t{kDigitSide}});
  py::array_t<std::uint8_t> labels(static_cast<py::ssize_t>(count));
  auto *image_bytes = images.mutable_data(), *label_bytes = labels.mutable_data();
  {
    WithoutGil other_threads_run;
    make_digits(seed, count, image_bytes, label_bytes, threads);
  }
  return py::make_tuple(images, labels);
}

}  // namespace

void bind_device(py::module_& m) {
  bind_devices(m);
  add_functions(m, device_functions);
  bind_engine(m);
  m.def("make_digits", &digits, py::arg("seed"), py::arg("count"), py::arg("threads") = 0,
        "Synthetic handwritten digits: images uint8 (count, 28, 28) and labels uint8 (count,), the same for the same\n"
        "seed; a shorter run gives a prefix of a longer one.");
}

}  // namespace owl::python
