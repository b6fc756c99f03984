// Devices, waiting, memory and counters.
#include "owl/device.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "digits/digits.h"
#include "owl/error.h"
#include "python/bind.h"
#include "python/gil.h"
#include "runtime/engine.h"
#include "runtime/scheduler.h"

namespace owl::python {

namespace {

void bind_devices(py::module_& m) {
  py::class_<DeviceInfo>(m, "DeviceInfo", "What owl.devices() tells of a device.")
      .def_readonly("id", &DeviceInfo::id, "What set_device and x.device call it.")
      .def_readonly("kind", &DeviceInfo::kind, "'cpu', 'gpu' or 'null'.")
      .def_readonly("name", &DeviceInfo::name, "What it is, in words.")
      .def_readonly("threads", &DeviceInfo::threads, "How many threads compute on it.")
      .def_readonly("simulated", &DeviceInfo::simulated, "Whether it stands in for a GPU that is not there.")
      .def("__repr__", [](const DeviceInfo& d) {
        return py::str("DeviceInfo(id={}, kind={!r}, name={!r}, threads={}, simulated={})")
            .format(d.id, d.kind, d.name, d.threads, d.simulated);
      });
  m.attr("DeviceInfo").attr("__module__") = "owl";

  m.def(
      "initialize", [](const py::object&) {}, py::arg("argv") = py::none(),
      "Does nothing: owl starts by itself. Kept because Minerva's scripts call it.");
  m.def("create_cpu_device", &create_cpu_device,
        "A new CPU device with threads and memory of its own; its id. Device 0, a CPU device, exists from the start.");
  m.def("create_gpu_device", &create_gpu_device, py::arg("i"),
        "The device of GPU number `index`; its id.\n\nDeviceError: there is no such GPU.");
  m.def("create_null_device", &create_null_device,
        "A device that plans everything and runs nothing, for tests; its id.");
  m.def("get_gpu_device_count", &get_gpu_device_count, "How many GPUs there are, simulated ones included.");
  m.def("has_cuda", &has_cuda, "Whether owl can compute on a CUDA GPU here.");
  m.def("set_device", &set_device, py::arg("id"),
        "The device that computes what this thread records from now on. Each thread starts on device 0.\n\n"
        "DeviceError: there is no such device.");
  m.def("current_device", &current_device, "The id of the device that computes what this thread records.");
  m.def("devices", &devices, "Every device, a list of DeviceInfo.");
}

// A limit in bytes; None or 0 is no limit.
void limit_memory(const std::optional<std::int64_t>& bytes, std::optional<int> device) {
  if (bytes && *bytes < 0) throw py::value_error("set_memory_limit: bytes must not be negative");
  set_memory_limit(static_cast<std::size_t>(bytes.value_or(0)), device);
}

py::dict memory_dict(std::optional<int> device) {
  const MemoryStats s = memory_stats(device);
  py::dict d;
  d["allocated"] = s.allocated;
  d["cached"] = s.cached;
  d["peak"] = s.peak;
  d["limit"] = s.limit;
  return d;
}

void bind_memory(py::module_& m) {
  m.def("set_memory_limit", &limit_memory, py::arg("bytes"), py::arg("device") = py::none(),
        "No device holds more than this many bytes (or only the one named); 0 or None: no limit. At the limit owl\n"
        "waits for running work, trims its cache and tries again before it raises OutOfMemoryError.");
  m.def("memory_stats", &memory_dict, py::arg("device") = py::none(),
        "The bytes 'allocated', 'cached', their 'peak' and the 'limit' (0: none) of a device, or of all together.");
  m.def("empty_cache", &empty_cache, "Gives memory that no value uses back to the system.");
}

py::dict stats_dict() {
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
  return d;
}

void bind_engine(py::module_& m) {
  m.def("wait_for_all", &wait_for_all,
        "Waits until everything recorded and still held has its value; raises the first error among them.");
  m.def("stats", &stats_dict, "What the engine did since it started: counters by name.");
  m.def("set_window", [](std::size_t count, std::int64_t idle_us) {
    WithoutGil workers_may_need_it;
    set_window(count, idle_us);
  }, py::arg("count"), py::arg("idle_us"),
        "How many operations the window keeps back, and after how many microseconds of quiet an idle worker takes\n"
        "them all (negative: never). For tests.");
  m.def("set_fault", &set_fault, py::arg("alloc"), py::arg("op"),
        "From now on the alloc-th request for memory and the op-th task that starts fail (0: none). For tests.");
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
  bind_memory(m);
  bind_engine(m);
  m.def("make_digits", &digits, py::arg("seed"), py::arg("count"), py::arg("threads") = 0,
        "Synthetic handwritten digits: images uint8 (count, 28, 28) and labels uint8 (count,), the same for the same\n"
        "seed; a shorter run gives a prefix of a longer one.");
}

}  // namespace owl::python
