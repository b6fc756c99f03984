#include "python/dlpack.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/record.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/later.h"
#include "python/narray_type.h"
#include "python/numpy_exchange.h"
#include "python/numpy_types.h"
#include "python/source.h"
#include "python/text.h"
#include "runtime/engine.h"

namespace owl::python {

namespace {

// --- the binary interface

struct DLDevice {
  std::int32_t type, id;
};
constexpr std::int32_t kDLCpu = 1, kDLCuda = 2, kDLCudaHost = 3, kDLCudaManaged = 13;

struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null: C-order
  std::uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

struct DLManagedTensorVersioned {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor tensor;
};
constexpr std::uint64_t kReadOnly = 1, kCopied = 2;
constexpr char kPlain[] = "dltensor", kVersioned[] = "dltensor_versioned";
constexpr char kUsedPlain[] = "used_dltensor", kUsedVersioned[] = "used_dltensor_versioned";

// In the order of DType.
constexpr DLDataType kTypes[] = {{6, 8, 1},  {1, 8, 1},  {0, 32, 1}, {0, 64, 1},
                                 {2, 16, 1}, {4, 16, 1}, {2, 32, 1}, {2, 64, 1}};

// --- streams

// The handle of CUDA's default stream.
constexpr std::uintptr_t kDefaultStream = 1;

Backend& backend_of(const NArray& x) { return *x.node()->device->backend; }

// The stream on which a consumer will use GPU memory; nothing if it wants no synchronization.
std::optional<std::uintptr_t> consumer_stream(PyObject* stream) {
  if (!given(stream)) return kDefaultStream;
  const auto handle = to_int(stream, "__dlpack__: stream");
  if (handle == -1) return {};
  if (handle <= 0)
    throw py::value_error("__dlpack__: stream " + std::to_string(handle) +
                          " does not exist; expected 1 (the legacy default stream), 2 (the thread's default stream), a "
                          "stream's handle, or -1 for no order at all");
  return static_cast<std::uintptr_t>(handle);
}

// A consumer's stream, which may use the GPU's memory until the consumer releases it; 0: none.
struct Loan {
  std::uintptr_t stream = 0;
  std::uint64_t number = 0;
};

// Makes the stream's later work wait for the value. Does not wait for the value itself.
Loan lend(const NArray& x, std::uintptr_t stream) {
  if (backend_of(x).is_capturing(stream))
    throw py::buffer_error("__dlpack__: the stream is capturing a CUDA graph, in which it cannot wait for owl; export "
                           "the array before the capture");
  Engine::get().order(x.node());
  return {stream, backend_of(x).export_to_stream(*x.node()->storage(), stream)};
}

// --- export

template <class Managed> struct Export {
  Managed managed{};
  NArray array;
  Loan loan;
  std::int64_t shape[kMaxAxes], strides[kMaxAxes];

  ~Export() {
    try {
      if (loan.stream)
        backend_of(array).join_stream(Ref<Storage>::borrow(array.node()->storage()), loan.stream, loan.number);
    } catch (const Error&) {  // the GPU failed, which every operation on it reports
    }
  }
};

// The first element of a value in memory.
char* first_element(const NArray& x) {
  const Node& node = *x.node();
  auto* data = static_cast<char*>(node.storage()->data);
  return data ? data + node.offset * static_cast<std::int64_t>(itemsize(x.dtype())) : nullptr;
}

// In elements; axes of length 1 get a dense array's strides, because consumers check these too.
Strides exported_strides(const NArray& x) {
  Strides strides = strides_of(*x.node());
  const Strides dense = x.shape().dense_strides();
  for (int i = 0; i < x.ndim(); ++i)
    if (x.size() == 0 || x.shape()[i] == 1) strides[static_cast<std::size_t>(i)] = dense[static_cast<std::size_t>(i)];
  return strides;
}

// PyTorch aborts the process on a negative stride; JAX refuses it.
bool runs_backwards(const NArray& x) {
  const Strides strides = exported_strides(x);
  return std::any_of(strides.begin(), strides.begin() + x.ndim(), [](std::int64_t s) { return s < 0; });
}

template <class Managed> Managed* export_array(const NArray& x, Loan loan) {
  auto* e = new Export<Managed>;
  e->array = x;
  e->loan = loan;
  const Strides strides = exported_strides(x);
  const int ndim = x.ndim();
  for (int i = 0; i < ndim; ++i) {
    e->shape[ndim - 1 - i] = x.shape()[i];
    e->strides[ndim - 1 - i] = strides[static_cast<std::size_t>(i)];
  }
  const int gpu = backend_of(x).gpu();
  const DLDevice device{gpu < 0 ? kDLCpu : kDLCuda, std::max(gpu, 0)};
  // The offset goes into the pointer: several libraries forget byte_offset.
  e->managed.tensor = {first_element(x), device, ndim, kTypes[static_cast<int>(x.dtype())], e->shape, e->strides, 0};
  e->managed.context = e;
  e->managed.deleter = [](Managed* m) { delete static_cast<Export<Managed>*>(m->context); };
  return &e->managed;
}

template <class Managed, const char* Name> void drop_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Name)) return;  // renamed: the consumer has taken it over
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Name));
  managed->deleter(managed);
}

template <class Managed, const char* Name> PyObject* capsule_of(Managed* managed) {
  PyObject* capsule = PyCapsule_New(managed, Name, &drop_unused<Managed, Name>);
  if (!capsule) managed->deleter(managed);
  return capsule;
}

// --- import

// A tensor that owl has taken over. Its deleter may run any code, Python included.
struct Foreign {
  void (*destroy)(void* managed);
  void* managed;
  Backend* gpu = nullptr;  // whose memory it is
};

// A GPU's work on the memory has been ordered, but may not have run.
void release_foreign(void* context) {
  constexpr auto later = [](void* due) {
    release_later([](void* p) {
      auto* f = static_cast<Foreign*>(p);
      f->destroy(f->managed);
      delete f;
    }, due);
  };
  Backend* const gpu = static_cast<Foreign*>(context)->gpu;
  if (!gpu) return later(context);
  try {
    gpu->when_through(later, context);
  } catch (const Error&) {  // the GPU failed: it no longer runs owl's work
    later(context);
  }
}

// The device for host memory: the current one, unless that is a GPU.
Device& host_device() {
  Device& current = Engine::get().device(current_device());
  return current.backend->host_readable() ? current : Engine::get().device(0);
}

// The device for memory with these DLPack numbers: the current one if it matches, else the first.
Device& device_for(std::int64_t type, std::int64_t id) {
  if (type == kDLCpu || type == kDLCudaHost) return host_device();
  if (type != kDLCuda && type != kDLCudaManaged)
    throw DeviceError("from_dlpack: the array lives on DLPack device type " + std::to_string(type) +
                      "; only host memory and that of CUDA's GPUs can be shared, so copy it to the CPU first");
  Device* found = nullptr;
  for (const DeviceInfo& info : devices()) {
    Device& device = Engine::get().device(info.id);
    if (device.backend->gpu() == id && (!found || info.id == current_device())) found = &device;
  }
  if (!found)
    throw DeviceError("from_dlpack: the array lives on GPU " + std::to_string(id) +
                      ", which owl does not use yet; call owl.create_gpu_device(" + std::to_string(id) + ") first");
  found->require_own_process();
  return *found;
}

DType type_of(const DLTensor& t) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto& k = kTypes[i];
    if (t.dtype.code == k.code && t.dtype.bits == k.bits && t.dtype.lanes == 1) return static_cast<DType>(i);
  }
  constexpr const char* codes[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string code = t.dtype.code < 7 ? codes[t.dtype.code] : "type " + std::to_string(t.dtype.code) + ", bits ";
  const std::string lanes = t.dtype.lanes == 1 ? "" : " in vectors of " + std::to_string(t.dtype.lanes);
  throw DTypeError("from_dlpack: " + code + std::to_string(t.dtype.bits) + lanes +
                   " elements have no counterpart in owl, which has " + kAllTypes +
                   "; convert them first, or copy with owl.from_numpy");
}

// Checks another library's shape and strides: refuses impossible ones before owl reads through them.
void check_plausible(const DLTensor& t) {
  const auto refuse = [](const std::string& what) { throw py::buffer_error("from_dlpack: the tensor " + what); };
  if (t.ndim < 0 || t.ndim > kMaxAxes)
    refuse("has " + std::to_string(t.ndim) + " axes; 0 to " + std::to_string(kMaxAxes) + " are possible");
  if (t.ndim > 0 && !t.shape) refuse("has axes but no shape");
  std::int64_t lowest = 0, highest = 0, bytes = t.dtype.bits / 8;
  bool good = true, empty = false;
  for (int i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) refuse("has an axis of length " + std::to_string(t.shape[i]));
    if (t.shape[i] == 0) empty = true;
  }
  for (int i = 0; t.strides && !empty && i < t.ndim; ++i) {
    std::int64_t reach = 0;
    auto& end = t.strides[i] < 0 ? lowest : highest;
    good &= !__builtin_mul_overflow(t.strides[i], t.shape[i] - 1, &reach) && !__builtin_add_overflow(end, reach, &end);
  }
  std::int64_t span = 0;
  good &= !__builtin_sub_overflow(highest, lowest, &span) && !__builtin_mul_overflow(span, bytes, &span) &&
          !__builtin_add_overflow(span, t.byte_offset, &span);
  if (!good) refuse("has strides or an offset that lead out of all memory");
  if (!t.data && !empty) refuse("has elements but no memory");
}

// `foreign` is null afterwards if an array has taken over the memory. `gpu`: the device whose import stream the
// producer was given.
NArray import_tensor(const DLTensor& t, std::unique_ptr<Foreign>& foreign, const Device* gpu) {
  Device& device = device_for(t.device.type, t.device.id);
  const bool on_gpu = !device.backend->host_readable();
  if (on_gpu && &device != gpu)
    throw py::buffer_error("from_dlpack: the memory is of GPU " + std::to_string(t.device.id) +
                           ", but that is not what __dlpack_device__ said");
  const DType dtype = type_of(t);
  check_plausible(t);
  std::vector<std::int64_t> lengths(t.shape, t.shape + t.ndim);
  if (lengths.empty()) lengths.push_back(1);
  std::reverse(lengths.begin(), lengths.end());
  const Shape shape{std::span<const std::int64_t>(lengths)};
  const Strides dense_strides = shape.dense_strides();
  Strides strides = dense_strides;
  if (t.strides && shape.size() > 0)
    for (int i = 0; i < t.ndim; ++i) strides[static_cast<std::size_t>(i)] = t.strides[t.ndim - 1 - i];

  // The memory that the elements span: the array is a view of it, with any strides.
  std::int64_t lowest = 0, highest = 0;
  bool dense = true;
  for (int i = 0; i < shape.ndim(); ++i) {
    const auto axis = static_cast<std::size_t>(i);
    if (shape[i] > 1) dense &= strides[axis] == dense_strides[axis];
    (strides[axis] < 0 ? lowest : highest) += strides[axis] * (shape[i] - 1);
  }
  auto* first = static_cast<char*>(t.data) + t.byte_offset;
  if (reinterpret_cast<std::uintptr_t>(first) % itemsize(dtype) != 0)
    throw DTypeError("from_dlpack: the array's memory is not aligned to its element type; copy it with owl.from_numpy");
  UseDevice there(device);
  if (on_gpu) foreign->gpu = device.backend.get();
  const auto take = [&](const Shape& all) {
    const NArray memory = (on_gpu ? adopt_foreign : from_foreign)(first, all, dtype, &release_foreign, foreign.get());
    foreign.release();
    if (!on_gpu) return memory;
    device.backend->receive(*memory.node()->storage());
    return dtype == DType::kBool ? truths_of(memory) : memory;
  };
  if (dense || shape.size() == 0) return take(shape);
  first += lowest * static_cast<std::int64_t>(itemsize(dtype));
  const NArray memory = take(Shape{highest - lowest + 1});
  return record_view(memory, shape, -lowest, &strides);
}

template <class Managed>
NArray import_capsule(PyObject* capsule, const char* name, const char* used, const Device* gpu) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  if (!managed) throw py::error_already_set();
  auto foreign = std::make_unique<Foreign>(Foreign{[](void* p) {
    auto* m = static_cast<Managed*>(p);
    if (m->deleter) m->deleter(m);
  }, managed});
  // The capsule must not free memory that has been taken over, even if a later step fails.
  struct Settle {
    const std::unique_ptr<Foreign>& foreign;
    PyObject* capsule;
    const char* used;
    ~Settle() {
      if (!foreign) PyCapsule_SetName(capsule, used);
    }
  } settle{foreign, capsule, used};
  return import_tensor(managed->tensor, foreign, gpu);
}

// The device of the GPU of y's memory; null for other memory.
Device* gpu_of(py::handle y) {
  if (!py::hasattr(y, "__dlpack_device__")) return nullptr;
  const auto where = to_ints(y.attr("__dlpack_device__")().ptr(), "from_dlpack: what __dlpack_device__ gives");
  if (where.size() != 2 || (where[0] != kDLCuda && where[0] != kDLCudaManaged)) return nullptr;
  return &device_for(where[0], where[1]);
}

py::object export_of(py::handle y, const Device* gpu) {
  py::dict arguments;
  if (gpu) arguments["stream"] = gpu->backend->import_stream();
  const auto ask = [&] { return y.attr("__dlpack__")(**arguments); };
  try {
    arguments["max_version"] = py::make_tuple(1, 0);
    return ask();
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_TypeError)) throw;  // a library older than DLPack 1 lacks the argument
  }
  arguments.attr("pop")("max_version");
  return ask();
}

PyObject* import_from(py::handle y, const std::string& function) {
  if (is_narray(y.ptr())) return Py_NewRef(y.ptr());
  if (!py::hasattr(y, "__dlpack__"))
    throw py::type_error(function + ": y must be an array with __dlpack__ (NumPy, PyTorch, CuPy, JAX ...), not " +
                         type_name(y.ptr()));
  release_what_is_due();
  const Device* gpu = gpu_of(y);
  const py::object capsule = export_of(y, gpu);
  if (gpu && gpu->backend->is_capturing(gpu->backend->import_stream())) {
    gpu->backend->renew_import_stream();
    throw py::buffer_error(function + ": the array belongs to a CUDA graph that is being captured, so it has no value "
                           "yet; import it after the capture");
  }
  note_source();
  if (PyCapsule_IsValid(capsule.ptr(), kVersioned)) {
    auto* managed =
        static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersioned));
    if (managed->major != 1)
      throw py::buffer_error("from_dlpack: DLPack version " + std::to_string(managed->major) + " is not known");
    return wrap(import_capsule<DLManagedTensorVersioned>(capsule.ptr(), kVersioned, kUsedVersioned, gpu));
  }
  return wrap(import_capsule<DLManagedTensor>(capsule.ptr(), kPlain, kUsedPlain, gpu));
}

PyObject* from_dlpack(PyObject*, const Call& call) {
  const auto [y] = call.get("from_dlpack", {"y"});
  return import_from(y, "from_dlpack");
}

py::object cupy(const std::string& function) {
  try {
    return py::module_::import("cupy");
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_ImportError)) throw;
    throw Error(function + ": CuPy is not installed: pip install cupy-cuda13x (cupy-cuda12x for CUDA 12)");
  }
}

// CuPy imports arrays without __dlpack__, such as Numba's.
PyObject* from_cupy(PyObject*, const Call& call) {
  const auto [a] = call.get("from_cupy", {"a"});
  auto array = py::reinterpret_borrow<py::object>(a);
  if (!is_narray(a) && !py::hasattr(array, "__dlpack__")) {
    if (!py::hasattr(array, "__cuda_array_interface__"))
      throw py::type_error("from_cupy: a must be a CuPy array, or another with __dlpack__ or __cuda_array_interface__, "
                           "not " + type_name(a));
    array = cupy("from_cupy").attr("asarray")(array);
  }
  return import_from(array, "from_cupy");
}

PyMethodDef dlpack_functions[] = {
    method<from_dlpack>("from_dlpack",
        "from_dlpack(y)\n--\n\n"
        "An array of another library (NumPy, PyTorch, CuPy, JAX: any with __dlpack__) without a copy, axes reversed.\n"
        "The two share its memory, so do not change it while owl uses it; owl itself never writes to it. Any strides.\n"
        "Memory of a GPU gives an array on that GPU's device, and owl does not wait for its value. Bools are copied\n"
        "if a byte is neither 0 nor 1 (it counts as true), and always on a GPU.\n\n"
        "DTypeError: not a type that owl has; DeviceError: memory of a GPU that has no device yet\n"
        "(owl.create_gpu_device), or neither host memory nor a CUDA GPU's."),
    method<from_cupy>("from_cupy",
        "from_cupy(a)\n--\n\n"
        "owl.from_dlpack(a) of an array of CuPy, or of another library for GPUs: its memory, without a copy, axes\n"
        "reversed. Arrays with only __cuda_array_interface__ are accepted if CuPy is installed.\n\n"
        "TypeError: not such an array; other errors as from_dlpack."),
    {nullptr, nullptr, 0, nullptr},
};

void check_readable(const NArray& x) {
  if (!readable_on_host(x))
    throw DeviceError("__dlpack__: the array lives on device " + std::to_string(x.device()) +
                      ", whose memory cannot be shared; use x.copy_to(0) first");
}

// A copy in host memory.
NArray host_copy_of(const NArray& x) {
  const auto values = to_numpy(x);
  UseDevice host(backend_of(x).host_readable() ? *x.node()->device : host_device());
  return from_host(values.data(), x.shape(), x.dtype());
}

// A copy of the array on its device.
NArray copy_of(const NArray& x) {
  note_source();
  UseDevice there(*x.node()->device);
  return record(*find_op("copy"), {x.node()});
}

}  // namespace

PyObject* dlpack(PyObject* self, const Call& call) {
  const auto [stream, max_version, dl_device, copy] =
      call.get("__dlpack__", {"stream", "max_version", "dl_device", "copy"}, 0);
  NArray x = narray(self);
  const int gpu = backend_of(x).gpu();
  bool to_host = gpu < 0;
  if (given(dl_device)) {
    const auto wanted = to_ints(dl_device, "__dlpack__: dl_device");
    if (wanted.size() != 2) throw py::type_error("__dlpack__: dl_device must be a device type and a number, two integers");
    to_host |= wanted[0] == kDLCpu;
    if (gpu < 0 && wanted[0] != kDLCpu) throw py::buffer_error("owl: only an export to the CPU is possible");
    if (!to_host && (wanted[0] != kDLCuda || wanted[1] != gpu))
      throw py::buffer_error("owl: an array on GPU " + std::to_string(gpu) + " can be exported there or to the CPU");
  }
  const auto version = given(max_version) ? to_ints(max_version, "__dlpack__: max_version") : std::vector<std::int64_t>{};
  Loan lent;
  const bool backwards = runs_backwards(x), copied = copy == Py_True || backwards || (to_host && gpu >= 0);
  if (backwards && copy == Py_False)
    throw py::buffer_error("owl: an export of an array whose elements run backwards in memory is a copy");
  if (!to_host) {
    const auto consumer = consumer_stream(stream);
    if (copied) x = copy_of(x);
    if (consumer) lent = lend(x, *consumer);
    else lend(x, backend_of(x).stream());
  } else {
    if (gpu >= 0 && copy == Py_False) throw py::buffer_error("owl: an export from a GPU to the CPU is a copy");
    x.wait_for_eval();
    if (gpu < 0) check_readable(x);
    if (copied) x = host_copy_of(x);
  }
  // Only the newer form has a flag for read-only memory.
  const bool versioned = !version.empty() && version[0] >= 1;
  if (!versioned) return capsule_of<DLManagedTensor, kPlain>(export_array<DLManagedTensor>(x, lent));
  auto* managed = export_array<DLManagedTensorVersioned>(x, lent);
  managed->major = 1;
  managed->minor = 0;
  managed->flags = copied ? kReadOnly | kCopied : kReadOnly;
  return capsule_of<DLManagedTensorVersioned, kVersioned>(managed);
}

PyObject* dlpack_device(PyObject* self, const Call& call) {
  call.expect_none("__dlpack_device__");
  const int gpu = backend_of(narray(self)).gpu();
  return py::make_tuple(gpu < 0 ? kDLCpu : kDLCuda, std::max(gpu, 0)).release().ptr();
}

PyObject* cuda_array_interface(PyObject* self, void*) noexcept {
  return guarded([&] {
    const NArray& x = narray(self);
    if (backend_of(x).host_readable())
      throw py::attribute_error("__cuda_array_interface__: the array lives on device " + std::to_string(x.device()) +
                                ", not on a GPU");
    const auto stream = backend_of(x).stream();
    lend(x, stream);  // the stream waits for a copy that brings the value
    const Node& node = *x.node();
    const int ndim = x.ndim();
    const auto size = static_cast<std::int64_t>(itemsize(x.dtype()));
    const Strides steps = strides_of(node);
    py::tuple shape(ndim), strides(ndim);
    for (int i = 0; i < ndim; ++i) {
      shape[static_cast<std::size_t>(ndim - 1 - i)] = x.shape()[i];
      strides[static_cast<std::size_t>(ndim - 1 - i)] = steps[static_cast<std::size_t>(i)] * size;
    }
    const auto address = x.size() ? reinterpret_cast<std::uintptr_t>(first_element(x)) : 0;
    py::dict d;
    d["version"] = 3;
    d["shape"] = shape;
    d["typestr"] = array_dtype(x.dtype()).attr("str");
    d["data"] = py::make_tuple(address, true);  // read-only
    d["strides"] = node.strides ? py::object(strides) : py::none();
    d["stream"] = stream;
    return d.release().ptr();
  });
}

PyObject* to_cupy(PyObject* self, const Call& call) {
  call.expect_none("to_cupy");
  const NArray& x = narray(self);
  if (backend_of(x).host_readable())
    throw DeviceError("to_cupy: the array lives on device " + std::to_string(x.device()) + " (" +
                      x.node()->device->name + "), not on a GPU; use x.copy_to(gpu).to_cupy(), where gpu is the "
                      "result of owl.create_gpu_device");
  return cupy("to_cupy").attr("from_dlpack")(py::handle(self)).release().ptr();
}

void bind_dlpack(py::module_& m) { add_functions(m, dlpack_functions); }

}  // namespace owl::python
