// An array as text: what a debugger's user or a log wants to see, without computing anything for it.
#include <algorithm>
#include <ostream>

#include "graph/record.h"
#include "runtime/device.h"

namespace owl {

namespace {

constexpr std::int64_t kShown = 10;  // elements

void print_element(std::ostream& out, const void* data, std::int64_t i, DType dtype) {
  switch (dtype) {
    case DType::kBool: out << (static_cast<const std::uint8_t*>(data)[i] ? "true" : "false"); break;
    case DType::kInt32: out << static_cast<const std::int32_t*>(data)[i]; break;
    case DType::kFloat32: out << static_cast<const float*>(data)[i]; break;
    case DType::kFloat64: out << static_cast<const double*>(data)[i]; break;
  }
}

// The first elements in column-major order.
void print_values(std::ostream& out, const Node& x, const void* data) {
  const Strides strides = strides_of(x);
  for (std::int64_t i = 0; i < std::min(kShown, x.shape.size()); ++i) {
    std::int64_t at = x.offset, rest = i;
    for (int axis = 0; axis < x.shape.ndim(); ++axis) {
      at += rest % x.shape[axis] * strides[axis];
      rest /= x.shape[axis];
    }
    if (i > 0) out << ", ";
    print_element(out, data, at, x.dtype);
  }
  if (x.shape.size() > kShown) out << ", ...";
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const NArray& x) {
  if (!x.has_value()) return out << "NArray()";
  const Node& node = *x.node();
  out << "NArray(shape=" << node.shape.str() << ", dtype=" << name(node.dtype) << ", device=" << node.device->id;
  const Storage* storage = node.storage();
  if (storage && storage->ready() && node.device->backend->computes() &&
      node.device->backend->gpu() < 0) {
    out << ", values=[";
    print_values(out, node, storage->data);
    out << "]";
  }
  return out << ")";
}

}  // namespace owl
