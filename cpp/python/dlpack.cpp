#include "python/dlpack.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "graph/record.h"
#include "python/bind.h"
#include "python/later.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"
#include "runtime/device.h"

namespace owl::python {

namespace {

// --- the binary interface

struct DLDevice {
  std::int32_t type, id;
};
constexpr std::int32_t kDLCpu = 1, kDLCudaHost = 3;

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
constexpr std::uint64_t kReadOnly = 1;
constexpr char kPlain[] = "dltensor", kVersioned[] = "dltensor_versioned";
constexpr char kUsedPlain[] = "used_dltensor", kUsedVersioned[] = "used_dltensor_versioned";

constexpr DLDataType kTypes[] = {{6, 8, 1}, {0, 32, 1}, {2, 32, 1}, {2, 64, 1}};  // in the order of DType

// --- handing out

template <class Managed> struct Export {
  Managed managed{};
  NArray array;
  std::int64_t shape[kMaxAxes], strides[kMaxAxes];
};

template <class Managed> Managed* export_array(const NArray& x) {
  auto* e = new Export<Managed>;
  e->array = x;
  const Node& node = *x.node();
  const Strides strides = strides_of(node);
  const int ndim = x.ndim();
  for (int i = 0; i < ndim; ++i) {
    e->shape[ndim - 1 - i] = x.shape()[i];
    e->strides[ndim - 1 - i] = strides[static_cast<std::size_t>(i)];
  }
  // The offset goes into the pointer: several libraries forget byte_offset.
  auto* data = static_cast<char*>(node.storage()->data);
  if (data) data += node.offset * static_cast<std::int64_t>(itemsize(x.dtype()));
  e->managed.tensor = {data, {kDLCpu, 0}, ndim, kTypes[static_cast<int>(x.dtype())], e->shape, e->strides, 0};
  e->managed.context = e;
  e->managed.deleter = [](Managed* m) { delete static_cast<Export<Managed>*>(m->context); };
  return &e->managed;
}

template <class Managed, const char* Name> void drop_unused(PyObject* capsule) {
  if (!PyCapsule_IsValid(capsule, Name)) return;  // renamed: the consumer took it over
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, Name));
  managed->deleter(managed);
}

template <class Managed, const char* Name> PyObject* capsule_of(Managed* managed) {
  PyObject* capsule = PyCapsule_New(managed, Name, &drop_unused<Managed, Name>);
  if (!capsule) managed->deleter(managed);
  return capsule;
}

// --- taking in

// A tensor that owl has taken over. Its deleter may run any code, Python included.
struct Foreign {
  void (*destroy)(void* managed);
  void* managed;
};

void release_foreign(void* context) {
  release_later([](void* p) {
    auto* f = static_cast<Foreign*>(p);
    f->destroy(f->managed);
    delete f;
  }, context);
}

DType type_of(const DLTensor& t) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto& k = kTypes[i];
    if (t.dtype.code == k.code && t.dtype.bits == k.bits && t.dtype.lanes == 1) return static_cast<DType>(i);
  }
  constexpr const char* codes[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string code = t.dtype.code < 7 ? codes[t.dtype.code] : "type";
  throw DTypeError("from_dlpack: " + code + std::to_string(t.dtype.bits) +
                   " elements have no counterpart in owl, which has bool, int32, float32 and float64; convert them "
                   "first, or copy with owl.from_numpy");
}

NArray import_tensor(const DLTensor& t, Foreign* foreign) {
  if (t.device.type != kDLCpu && t.device.type != kDLCudaHost)
    throw DeviceError("from_dlpack: the array lives on DLPack device type " + std::to_string(t.device.type) +
                      "; only host memory can be shared, so copy it to the CPU first");
  const DType dtype = type_of(t);
  std::vector<std::int64_t> lengths(t.shape, t.shape + t.ndim);
  if (lengths.empty()) lengths.push_back(1);
  std::reverse(lengths.begin(), lengths.end());
  const Shape shape{std::span<const std::int64_t>(lengths)};
  const Strides dense_strides = shape.dense_strides();
  Strides strides = dense_strides;
  if (t.strides)
    for (int i = 0; i < t.ndim; ++i) strides[static_cast<std::size_t>(i)] = t.strides[t.ndim - 1 - i];

  // The memory that the elements span: a view of it is the array, whatever its strides are.
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
  if (dense || shape.size() == 0) return from_foreign(first, shape, dtype, &release_foreign, foreign);
  const Shape span{highest - lowest + 1};
  first += lowest * static_cast<std::int64_t>(itemsize(dtype));
  const NArray memory = from_foreign(first, span, dtype, &release_foreign, foreign);
  return record_view(memory, shape, -lowest, &strides);
}

template <class Managed> NArray import_capsule(PyObject* capsule, const char* name, const char* used) {
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  if (!managed) throw py::error_already_set();
  auto foreign = std::make_unique<Foreign>(Foreign{[](void* p) {
    auto* m = static_cast<Managed*>(p);
    if (m->deleter) m->deleter(m);
  }, managed});
  NArray result = import_tensor(managed->tensor, foreign.get());
  // From here on the array owns the tensor, and the capsule must not free it.
  foreign.release();
  if (PyCapsule_SetName(capsule, used) != 0) throw py::error_already_set();
  return result;
}

py::object export_of(py::handle y) {
  if (!py::hasattr(y, "__dlpack__"))
    throw py::type_error("from_dlpack: y must be an array with __dlpack__ (NumPy, PyTorch, CuPy, JAX ...), not " +
                         type_name(y.ptr()));
  try {
    return y.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_TypeError)) throw;  // a library from before DLPack 1 does not know the argument
  }
  return y.attr("__dlpack__")();
}

PyObject* from_dlpack(PyObject*, const Call& call) {
  const auto [y] = call.get("from_dlpack", {"y"});
  if (is_narray(y)) return Py_NewRef(y);
  release_what_is_due();
  const py::object capsule = export_of(y);
  note_source();
  if (PyCapsule_IsValid(capsule.ptr(), kVersioned)) {
    auto* managed =
        static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersioned));
    if (managed->major != 1)
      throw py::buffer_error("from_dlpack: DLPack version " + std::to_string(managed->major) + " is not known");
    return wrap(import_capsule<DLManagedTensorVersioned>(capsule.ptr(), kVersioned, kUsedVersioned));
  }
  return wrap(import_capsule<DLManagedTensor>(capsule.ptr(), kPlain, kUsedPlain));
}

PyMethodDef functions[] = {
    method<from_dlpack>("from_dlpack",
        "from_dlpack(y)\n--\n\n"
        "An array of another library (NumPy, PyTorch, CuPy, JAX: whatever has __dlpack__) without a copy, axes\n"
        "reversed. Its memory is shared, so it should not be changed while owl uses it; owl itself never writes to\n"
        "it. Any strides.\n\n"
        "DTypeError: not bool, int32, float32 or float64; DeviceError: not host memory."),
    {nullptr, nullptr, 0, nullptr},
};

void check_readable(const NArray& x) {
  if (!readable_on_host(x))
    throw DeviceError("__dlpack__: the array lives on device " + std::to_string(x.device()) +
                      ", whose memory cannot be shared; use x.copy_to(0) first");
}

}  // namespace

PyObject* dlpack(PyObject* self, const Call& call) {
  const auto [stream, max_version, dl_device, copy] =
      call.get("__dlpack__", {"stream", "max_version", "dl_device", "copy"}, 0);
  NArray x = narray(self);
  if (given(dl_device)) {
    const auto wanted = to_ints(dl_device, "__dlpack__: dl_device");
    if (wanted.size() != 2) throw py::type_error("__dlpack__: dl_device must be a device type and a number, two integers");
    if (wanted[0] != kDLCpu) throw py::buffer_error("owl: only an export to the CPU is possible");
  }
  const auto version = given(max_version) ? to_ints(max_version, "__dlpack__: max_version") : std::vector<std::int64_t>{};
  x.wait_for_eval();
  check_readable(x);
  if (copy == Py_True) {
    const auto values = to_numpy(x);
    x = from_host(values.data(), x.shape(), x.dtype());
  }
  // The old form has no way to say that the memory must not be written to; the newer one has a flag for it.
  const bool versioned = !version.empty() && version[0] >= 1;
  if (!versioned) return capsule_of<DLManagedTensor, kPlain>(export_array<DLManagedTensor>(x));
  auto* managed = export_array<DLManagedTensorVersioned>(x);
  managed->major = 1;
  managed->minor = 0;
  managed->flags = kReadOnly;
  return capsule_of<DLManagedTensorVersioned, kVersioned>(managed);
}

PyObject* dlpack_device(PyObject* self, const Call& call) {
  call.expect_none("__dlpack_device__");
  (void)self;
  return py::make_tuple(kDLCpu, 0).release().ptr();
}

void bind_dlpack(py::module_& m) { add_functions(m, functions); }

}  // namespace owl::python
