#include "python/numpy_exchange.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "device/device.h"
#include "graph/record.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/source.h"

namespace owl::python {

namespace {

// For copies above this many bytes, release the GIL.
constexpr std::int64_t kLongCopy = 1 << 18;

// From this size on the memory of a temporary is handed over: a smaller copy takes no longer than the capsule.
constexpr std::int64_t kHandedOver = 1 << 15;

bool all_fit_int64(const py::array& a) {
  if (a.size() == 0) return true;
  return a.attr("max")().attr("item")() <= py::int_(std::numeric_limits<std::int64_t>::max());
}

// The nearest of owl's types.
DType nearest(const py::array& a) {
  const py::dtype t = a.dtype();
  const auto width = t.itemsize();
  switch (t.kind()) {
    case 'b': return DType::kBool;
    case 'i':
      return width <= 4 ? DType::kInt32 : DType::kInt64;
    case 'u':
      if (width <= 2) return width == 1 ? DType::kUInt8 : DType::kInt32;
      return width == 4 || all_fit_int64(a) ? DType::kInt64 : DType::kFloat64;
    case 'f': return width == 2 ? DType::kFloat16 : width == 4 ? DType::kFloat32 : DType::kFloat64;
    default:
      if (py::object(t.attr("newbyteorder")("=")).equal(numpy_dtype(DType::kBFloat16))) return DType::kBFloat16;
      throw DTypeError("from_numpy: an array of dtype " + py::str(py::object(t)).cast<std::string>() +
                       " has no counterpart in owl, which has " + kAllTypes);
  }
}

Shape reversed_shape(const py::array& a) {
  std::vector<std::int64_t> lengths(a.shape(), a.shape() + a.ndim());
  if (lengths.empty()) lengths.push_back(1);
  std::reverse(lengths.begin(), lengths.end());
  return Shape(std::span<const std::int64_t>(lengths));
}

// numpy.asarray would expose the hidden elements of a masked array.
void refuse_masked(PyObject* a) {
  if (Py_TYPE(a) == reinterpret_cast<PyTypeObject*>(numpy->ndarray.ptr()) || !is_a(a, numpy->ndarray)) return;
  const auto name = py::str("numpy.ma");
  const auto ma = py::reinterpret_steal<py::object>(PyImport_GetModule(name.ptr()));  // null: not imported, so no mask
  if (ma && ma.attr("is_masked")(py::handle(a)).cast<bool>())
    throw py::type_error("from_numpy: the array has masked elements, and owl has no masks; pass a.filled(value)");
}

std::vector<py::ssize_t> numpy_lengths(const Shape& shape) {
  std::vector<py::ssize_t> lengths(shape.begin(), shape.end());
  std::reverse(lengths.begin(), lengths.end());
  return lengths;
}

py::array copy_of(const NArray& x, const py::dtype& dtype) {
  x.wait_for_eval();  // first, so that too large a value raises owl's error, not NumPy's
  py::array result(dtype, numpy_lengths(x.shape()));
  void* to = result.mutable_data();
  if (result.nbytes() < kLongCopy) {
    x.copy_to_host(to);
  } else {
    WithoutGil other_threads_run;
    x.copy_to_host(to);
  }
  return result;
}

// Whether the handle is all that refers to a whole value in a CPU's memory. Under a limit the value's memory must return
// to owl with its handle.
bool is_sole_owner(const NArray& x) {
  const Node& node = *x.node();
  const Storage* const storage = node.storage();
  return !node.base && !node.strides && node.handles() == 1 && node.refs() == 1 && !node.has_been_copied &&
         node.device->kind == Device::Kind::kCpu && node.device->allocator.limit() == 0 && storage->refs() == 1 &&
         storage->ready() && storage->data && !storage->foreign_release;
}

PyObject* from_numpy(PyObject*, const Call& call) {
  const auto [a] = call.get("from_numpy", {"a"});
  if (is_narray(a)) return Py_NewRef(a);
  refuse_masked(a);
  auto source = numpy->asarray(py::handle(a)).cast<py::array>();
  const DType type = nearest(source);
  // One pass converts layout, alignment, byte order and type; returns the same array if it has all of them.
  auto dense = numpy->ascontiguousarray(source, numpy_dtype(type)).cast<py::array>();
  const Shape shape = reversed_shape(source);
  note_source();
  if (dense.nbytes() < kLongCopy) return wrap(from_host(dense.data(), shape, type));
  NArray result;
  {
    WithoutGil other_threads_run;
    result = from_host(dense.data(), shape, type);
  }
  return wrap(std::move(result));
}

// Files keep bfloat16 as bits, whether ml_dtypes is installed or not.
PyObject* bfloat16_bits(PyObject*, const Call& call) {
  const auto [x] = call.get("bfloat16_bits", {"x"});
  const NArray& array = to_narray(x, "bfloat16_bits: x");
  if (array.dtype() != DType::kBFloat16) throw DTypeError("bfloat16_bits: the array is " + std::string(name(array.dtype())));
  return copy_of(array, py::dtype::of<std::uint16_t>()).release().ptr();
}

PyObject* from_bfloat16_bits(PyObject*, const Call& call) {
  const auto [bits] = call.get("from_bfloat16_bits", {"bits"});
  const auto dense = numpy->ascontiguousarray(py::handle(bits), py::dtype::of<std::uint16_t>()).cast<py::array>();
  note_source();
  return wrap(from_host(dense.data(), reversed_shape(py::reinterpret_borrow<py::array>(bits)), DType::kBFloat16));
}

PyMethodDef exchange_functions[] = {
    method<from_numpy>("from_numpy",
        "from_numpy(a)\n--\n\n"
        "A copy of a NumPy array (or of an argument of numpy.asarray) with the axes reversed: shape (n, h, w)\n"
        "gives [w, h, n]. owl's types, ml_dtypes' bfloat16 among them, are kept; int8, int16 and uint16 become int32,\n"
        "uint32 int64, uint64 int64 if every value fits, else float64. A scalar has shape [1].\n\n"
        "DTypeError: complex numbers, text or objects. TypeError: a masked array that hides elements."),
    method<bfloat16_bits>("bfloat16_bits",
        "bfloat16_bits(x)\n--\n\nThe bits of a bfloat16 array as NumPy integers, axes reversed. owl.save uses it."),
    method<from_bfloat16_bits>("from_bfloat16_bits",
        "from_bfloat16_bits(bits)\n--\n\nThe bfloat16 array of these bits, axes reversed. owl.load uses it."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool readable_on_host(const NArray& x) {
  const Node& node = *x.node();
  const Storage* storage = node.storage();
  const bool in_host_memory = node.device->kind == Device::Kind::kCpu || node.device->simulated;
  return in_host_memory && storage && storage->ready() && (storage->data || x.size() == 0);
}

py::array to_numpy(NArray&& x) {
  const py::dtype dtype = array_dtype(x.dtype());
  const auto bytes = x.size() * static_cast<std::int64_t>(itemsize(x.dtype()));
  if (bytes < kHandedOver) return copy_of(x, dtype);
  x.wait_for_eval();
  if (!is_sole_owner(x)) return copy_of(x, dtype);
  const auto lengths = numpy_lengths(x.shape());
  auto storage = Ref<Storage>::borrow(x.node()->storage());
  const py::capsule owner(storage.get(), [](void* memory) { static_cast<Storage*>(memory)->release(); });
  void* const data = storage.detach()->data;
  x = NArray();
  return py::array(dtype, lengths, {}, data, owner);
}

py::array to_numpy(const NArray& x) { return copy_of(x, array_dtype(x.dtype())); }

void bind_numpy_exchange(py::module_& m) { add_functions(m, exchange_functions); }

}  // namespace owl::python
