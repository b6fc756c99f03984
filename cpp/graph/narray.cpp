// NArray, the script's handle on a node.
#include <utility>

#include "base/visit_dtype.h"
#include "device/device.h"
#include "graph/record.h"
#include "graph/sink.h"
#include "owl/narray.h"

namespace owl {

NArray::NArray(const NArray& o) : node_(o.node_) {
  if (node_) node_->retain_handle();
}

NArray::~NArray() {
  if (node_) node_->release_handle();
}

void detail::refuse_empty() { throw Error("an empty NArray has no value; assign one first"); }

namespace {
Node& checked(Node* node) {
  if (!node) detail::refuse_empty();
  return *node;
}
}  // namespace

const Shape& NArray::shape() const { return checked(node_).shape; }
DType NArray::dtype() const { return checked(node_).dtype; }
int NArray::device() const { return checked(node_).device->id; }

NArray NArray::copy_to(int device) const {
  Device& target = sink().device(device);
  if (checked(node_).device == &target) return *this;
  return copy_to_device(node_, target);
}

void NArray::start_eval() const {
  checked(node_);
  sink().start(node_);
}

bool NArray::wait_for_eval(std::optional<double> timeout_s) const {
  checked(node_);
  return sink().wait(node_, timeout_s);
}

bool NArray::ready() const {
  const Storage* storage = checked(node_).storage();
  return storage && storage->state.load(std::memory_order_acquire) != Storage::State::kPending &&
         storage->device->backend->is_complete(*storage);
}

void NArray::copy_to_host(void* destination) const {
  auto& backend = *checked(node_).device->backend;
  if (!backend.host_readable() && node_->strides) {
    UseDevice there(*node_->device);
    const Source caller = std::exchange(current_source, node_->source);  // the view inherits the place that errors name
    const NArray whole = dense(*this);
    current_source = caller;
    return whole.copy_to_host(destination);
  }
  wait_for_eval();
  if (!backend.computes())
    throw DeviceError("device " + std::to_string(device()) + " is the null device: it plans, but has no values");
  if (size() == 0) return;
  const auto offset = static_cast<std::size_t>(node_->offset) * itemsize(dtype());
  if (node_->strides)
    return backend.download_strided(destination, *node_->storage(), offset, shape(), *node_->strides, dtype());
  const auto bytes = static_cast<std::size_t>(size()) * itemsize(dtype());
  if (!backend.host_readable()) return backend.download(destination, *node_->storage(), offset, bytes);
  sink().copy_memory(*node_->device, destination, static_cast<const std::byte*>(node_->storage()->data) + offset, bytes);
}

void detail::refuse_item(const Shape& shape) {
  throw ShapeError("an array of shape " + shape.str() + " has " + std::to_string(shape.size()) +
                   " elements; only an array of one element is a number");
}

double NArray::item() const {
  if (size() != 1) detail::refuse_item(shape());
  alignas(8) std::byte value[8];
  copy_to_host(value);
  return visit_any_dtype("item", dtype(), [&]<class T>() {
    const T& element = *reinterpret_cast<T*>(value);
    if constexpr (requires { to_float(element); }) return double{to_float(element)};
    else return static_cast<double>(element);
  });
}

}  // namespace owl
