// Exchange with NumPy.
#include "python/numpy_types.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "graph/print.h"
#include "graph/record.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/gil.h"
#include "python/narray_type.h"
#include "python/source.h"
#include "device/device.h"

namespace owl::python {

namespace {

// Copies beyond this many bytes are worth letting other Python threads run.
constexpr std::int64_t kLongCopy = 1 << 18;

// Looked up once, kept for ever.
struct NumpyModule {
  py::object asarray, ascontiguousarray, dtype, array2string, get_printoptions;
  py::object ndarray, generic, boolean, integer, floating;
  py::handle dtypes[kDTypeCount];
} * numpy = nullptr;

bool is_a(PyObject* o, py::handle type) {
  return PyObject_TypeCheck(o, reinterpret_cast<PyTypeObject*>(type.ptr())) != 0;
}

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

// numpy.asarray would bring to light what a masked array hides.
void refuse_masked(PyObject* a) {
  if (Py_TYPE(a) == reinterpret_cast<PyTypeObject*>(numpy->ndarray.ptr()) || !is_a(a, numpy->ndarray)) return;
  const auto name = py::str("numpy.ma");
  const auto ma = py::reinterpret_steal<py::object>(PyImport_GetModule(name.ptr()));  // null: nobody has imported it
  if (ma && ma.attr("is_masked")(py::handle(a)).cast<bool>())
    throw py::type_error("from_numpy: the array has masked elements, and owl has no masks; hand over a.filled(value)");
}

PyObject* from_numpy(PyObject*, const Call& call) {
  const auto [a] = call.get("from_numpy", {"a"});
  if (is_narray(a)) return Py_NewRef(a);
  refuse_masked(a);
  auto source = numpy->asarray(py::handle(a)).cast<py::array>();
  const DType type = nearest(source);
  // One pass that settles layout, alignment, byte order and type; the same array where nothing is to do.
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

PyMethodDef functions[] = {
    method<from_numpy>("from_numpy",
        "from_numpy(a)\n--\n\n"
        "A copy of a NumPy array (or of what numpy.asarray makes one of) with the axes reversed: shape (n, h, w)\n"
        "gives [w, h, n]. float32, float64, int32 and bool keep their type, others take the nearest: float16 gives\n"
        "float32, smaller integers int32; 64-bit and unsigned integers int32 where every value fits, else float64. A\n"
        "scalar has shape [1].\n\n"
        "DTypeError: complex numbers, text or objects. TypeError: a masked array that hides elements."),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

NumberKind numpy_number(PyObject* o) {
  if (is_a(o, numpy->generic)) {
    if (is_a(o, numpy->boolean)) return NumberKind::kBool;
    if (is_a(o, numpy->integer)) return NumberKind::kInt;
    if (is_a(o, numpy->floating)) return NumberKind::kFloat;
    return NumberKind::kNone;
  }
  if (!is_a(o, numpy->ndarray)) return NumberKind::kNone;
  const auto a = py::reinterpret_borrow<py::array>(o);
  if (a.ndim() != 0) return NumberKind::kNone;
  switch (a.dtype().kind()) {
    case 'b': return NumberKind::kBool;
    case 'i': case 'u': return NumberKind::kInt;
    case 'f': return NumberKind::kFloat;
    default: return NumberKind::kNone;
  }
}

bool is_array_like(PyObject* o) {
  return PyList_Check(o) || PyTuple_Check(o) || is_a(o, numpy->ndarray);
}

py::handle numpy_dtype(DType dtype) { return numpy->dtypes[static_cast<int>(dtype)]; }

namespace {

constexpr const char* kAllTypes = "bool, int32, float32 and float64";

// The numpy.dtype that `o` names, in this machine's byte order; null where it names none.
py::object numpy_knows(PyObject* o) {
  try {
    return numpy->dtype(py::handle(o)).attr("newbyteorder")("=");
  } catch (const py::error_already_set& e) {
    if (!e.matches(PyExc_Exception) || e.matches(PyExc_MemoryError)) throw;
    return {};
  }
}

}  // namespace

DType to_dtype(PyObject* o, DType fallback) {
  if (!given(o)) return fallback;
  for (int i = 0; i < kDTypeCount; ++i)
    if (o == numpy->dtypes[i].ptr()) return static_cast<DType>(i);
  if (o == reinterpret_cast<PyObject*>(&PyLong_Type)) return DType::kInt32;  // owl's one integer type
  const py::object dtype = numpy_knows(o);
  if (!dtype) throw DTypeError("dtype " + shown(o) + " is not known; owl has " + kAllTypes);
  for (int i = 0; i < kDTypeCount; ++i)
    if (dtype.equal(numpy->dtypes[i])) return static_cast<DType>(i);
  throw DTypeError("dtype " + py::str(dtype).cast<std::string>() + " is not supported; owl has " + kAllTypes);
}

bool readable_on_host(const NArray& x) {
  const Node& node = *x.node();
  const Storage* storage = node.storage();
  const bool in_host_memory = node.device->kind == Device::Kind::kCpu || node.device->simulated;
  return in_host_memory && storage && storage->ready() && (storage->data || x.size() == 0);
}

py::array to_numpy(const NArray& x) {
  x.wait_for_eval();  // a value that is too large is owl's error, not one of NumPy's about room for the copy
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

namespace {

// Laid out by NumPy in owl's order of axes, so that what is printed agrees with the shape and with x[i, j].
std::string values_text(const NArray& x) {
  const py::dict options = numpy->get_printoptions();
  const double threshold = options["threshold"].cast<double>();  // infinite: everything
  const bool all = !(threshold < static_cast<double>(x.size()));
  const Excerpt excerpt = excerpt_of(x, all ? x.size() : 0, options["edgeitems"].cast<std::int64_t>());
  const auto owner = py::capsule(&excerpt, [](void*) {});  // no copy: the array does not outlive this call
  const Shape& shape = excerpt.shape;
  std::vector<py::ssize_t> lengths(shape.begin(), shape.end());
  std::reverse(lengths.begin(), lengths.end());
  const auto dtype = py::reinterpret_borrow<py::dtype>(numpy_dtype(x.dtype()));
  const py::array shown(dtype, lengths, excerpt.values.data(), owner);
  py::dict how(py::arg("separator") = ", ", py::arg("prefix") = "NArray(");
  if (excerpt.cut) how["threshold"] = 0;
  return numpy->array2string(shown.attr("T"), **how).cast<std::string>();
}

// The error in flight, "kind: message".
std::string error_text() {
  set_python_error();
  const py::error_already_set error;
  return type_name(error.value().ptr()) + ": " + py::str(error.value()).cast<std::string>();
}

std::string values_or_error(const NArray& x) {
  try {
    return values_text(x);
  } catch (const Error&) {
    return "<" + error_text() + ">";
  }
}

}  // namespace

// Waits.
PyObject* narray_repr(PyObject* self) noexcept {
  return guarded([&] {
    const NArray& x = narray(self);
    return py::str("NArray(" + values_or_error(x) + ", shape=" + x.shape().str() + ", dtype=" +
                   std::string(name(x.dtype())) + ", device=" + std::to_string(x.device()) + ")")
        .release()
        .ptr();
  });
}

void bind_numpy(py::module_& m) {
  auto module = py::module_::import("numpy");
  numpy = new NumpyModule;
  numpy->asarray = module.attr("asarray");
  numpy->ascontiguousarray = module.attr("ascontiguousarray");
  numpy->dtype = module.attr("dtype");
  numpy->array2string = module.attr("array2string");
  numpy->get_printoptions = module.attr("get_printoptions");
  numpy->ndarray = module.attr("ndarray");
  numpy->generic = module.attr("generic");
  numpy->boolean = module.attr("bool_");
  numpy->integer = module.attr("integer");
  numpy->floating = module.attr("floating");
  for (int i = 0; i < kDTypeCount; ++i) {
    const std::string dtype_name(name(static_cast<DType>(i)));
    numpy->dtypes[i] = numpy->dtype(dtype_name).release();
    m.attr(dtype_name == "bool" ? "bool_" : dtype_name.c_str()) = numpy->dtypes[i];
  }
  add_functions(m, functions);
}

}  // namespace owl::python
