// repr(x), by NumPy's rules of printing.
#include <pybind11/numpy.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "graph/print.h"
#include "python/errors.h"
#include "python/narray_class.h"
#include "python/narray_type.h"
#include "python/numpy_types.h"
#include "python/text.h"

namespace owl::python {

namespace {

// bfloat16 as float32 where ml_dtypes is not installed.
py::dtype shown_dtype(const NArray& x) {
  return array_dtype(x.dtype() == DType::kBFloat16 && !numpy->has_bfloat16 ? DType::kFloat32 : x.dtype());
}

void widen(Excerpt& excerpt) {
  const auto count = static_cast<std::size_t>(excerpt.shape.size());
  std::vector<std::byte> values(count * sizeof(float));
  for (std::size_t i = 0; i < count; ++i) {
    BFloat16 half;
    std::memcpy(&half, excerpt.values.data() + i * sizeof half, sizeof half);
    const float value = to_float(half);
    std::memcpy(values.data() + i * sizeof value, &value, sizeof value);
  }
  excerpt.values = std::move(values);
}

// Formatted by NumPy in owl's order of axes, so that the text agrees with the shape and with x[i, j].
std::string values_text(const NArray& x) {
  const py::dict options = numpy->get_printoptions();
  const double threshold = options["threshold"].cast<double>();  // infinite: print all elements
  const bool all = !(threshold < static_cast<double>(x.size()));
  Excerpt excerpt = excerpt_of(x, all ? x.size() : 0, options["edgeitems"].cast<std::int64_t>());
  if (shown_dtype(x).itemsize() != static_cast<py::ssize_t>(itemsize(x.dtype()))) widen(excerpt);
  const auto owner = py::capsule(&excerpt, [](void*) {});  // avoids a copy: the array does not outlive this call
  const Shape& shape = excerpt.shape;
  std::vector<py::ssize_t> lengths(shape.begin(), shape.end());
  std::reverse(lengths.begin(), lengths.end());
  const py::array shown(shown_dtype(x), lengths, excerpt.values.data(), owner);
  py::dict how(py::arg("separator") = ", ", py::arg("prefix") = "NArray(");
  if (excerpt.cut) how["threshold"] = 0;
  return numpy->array2string(shown.attr("T"), **how).cast<std::string>();
}

// The current error as "class: message".
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

PyObject* narray_repr(PyObject* self) noexcept {
  return guarded([&] {
    const NArray& x = narray(self);
    return py::str("NArray(" + values_or_error(x) + ", shape=" + x.shape().str() + ", dtype=" +
                   std::string(name(x.dtype())) + ", device=" + std::to_string(x.device()) + ")")
        .release()
        .ptr();
  });
}

}  // namespace owl::python
