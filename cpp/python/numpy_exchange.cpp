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

bool all_fit_int32(const py::array& a) {
  if (a.size() == 0) return true;
  const auto low = a.attr("min")().attr("item")(), high = a.attr("max")().attr("item")();
  return low >= py::int_(std::numeric_limits<std::int32_t>::min()) &&
         high <= py::int_(std::numeric_limits<std::int32_t>::max());
}

// The nearest of owl's types.
DType nearest(const py::array& a) {
  const py::dtype t = a.dtype();
  const auto width = t.itemsize();
  switch (t.kind()) {
    case 'b': return DType::kBool;
    case 'i':
      if (width <= 4) return DType::kInt32;
      return all_fit_int32(a) ? DType::kInt32 : DType::kFloat64;
    case 'u':
      if (width <= 2) return DType::kInt32;
      return all_fit_int32(a) ? DType::kInt32 : DType::kFloat64;
    case 'f': return width <= 4 ? DType::kFloat32 : DType::kFloat64;
    default:
      throw DTypeError("from_numpy: an array of dtype " + py::str(py::object(t)).cast<std::string>() +
                       " has no counterpart in owl, which has bool, int32, float32 and float64");
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

PyMethodDef exchange_functions[] = {
    method<from_numpy>("from_numpy",
        "from_numpy(a)\n--\n\n"
        "A copy of a NumPy array (or of an argument of numpy.asarray) with the axes reversed: shape (n, h, w)\n"
        "gives [w, h, n]. float32, float64, int32 and bool keep their type, others become the nearest one: float16\n"
        "gives float32, smaller integers int32; 64-bit and unsigned integers int32 if every value fits, else float64.\n"
        "A scalar has shape [1].\n\n"
        "DTypeError: complex numbers, text or objects. TypeError: a masked array that hides elements."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool readable_on_host(const NArray& x) {
  const Node& node = *x.node();
  const Storage* storage = node.storage();
  const bool in_host_memory = node.device->kind == Device::Kind::kCpu || node.device->simulated;
  return in_host_memory && storage && storage->ready() && (storage->data || x.size() == 0);
}

py::array to_numpy(const NArray& x) {
  x.wait_for_eval();  // first, so that too large a value raises owl's error, not NumPy's
  const Shape& shape = x.shape();
  std::vector<py::ssize_t> lengths(shape.begin(), shape.end());
  std::reverse(lengths.begin(), lengths.end());
  py::array result(py::reinterpret_borrow<py::dtype>(numpy_dtype(x.dtype())), lengths);
  void* to = result.mutable_data();
  if (result.nbytes() < kLongCopy) {
    x.copy_to_host(to);
  } else {
    WithoutGil other_threads_run;
    x.copy_to_host(to);
  }
  return result;
}

void bind_numpy_exchange(py::module_& m) { add_functions(m, exchange_functions); }

}  // namespace owl::python
