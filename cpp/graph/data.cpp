// Imported values: copies of host memory, and memory that another library owns.
#include <cstring>
#include <vector>

#include "device/device.h"
#include "graph/record.h"
#include "graph/sink.h"

namespace owl {

namespace {

Node* new_data(const char* what, const Shape& shape, DType dtype) {
  require_axes(what, shape);
  Node* node = Node::create();
  node->device = &device_for_recording();
  node->shape = shape;
  node->dtype = node->compute = dtype;
  node->source = current_source;
  return node;
}

// Whether memory of bools has a byte other than 0 and 1.
bool holds_other_bytes(const void* bools, std::int64_t n) {
  const auto* bytes = static_cast<const std::uint8_t*>(bools);
  std::uint64_t all = 0;
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    std::uint64_t eight;
    std::memcpy(&eight, bytes + i, sizeof eight);
    all |= eight;
  }
  for (; i < n; ++i) all |= bytes[i];
  return (all & ~std::uint64_t{0x0101010101010101}) != 0;
}

NArray hand_out_data(Node* node, Ref<Storage> storage) {
  storage->state.store(Storage::State::kReady, std::memory_order_release);
  node->set_storage(std::move(storage));
  node->retain_handle();
  node->release();  // the creator's reference
  return NArray::adopt(node);
}

}  // namespace

NArray record_data(const void* data, const Shape& shape, DType dtype) {
  Ref<Node> node = Ref<Node>::steal(new_data("from_host", shape, dtype));
  auto storage = storage_for(*node);
  if (node->device->backend->computes()) {
    sink().allocate_for_data(*storage);
    std::vector<std::uint8_t> truths;
    if (dtype == DType::kBool && holds_other_bytes(data, shape.size())) {
      const auto* bytes = static_cast<const std::uint8_t*>(data);
      truths.assign(bytes, bytes + shape.size());
      make_truths(truths.data(), shape.size());
      data = truths.data();
    }
    Device& device = *node->device;
    if (device.backend->host_readable()) sink().copy_memory(device, storage->data, data, storage->bytes);
    else if (storage->bytes > 0) device.backend->upload(*storage, data);
  }
  return hand_out_data(node.detach(), std::move(storage));
}

NArray from_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context) {
  const Backend& backend = *device_for_recording().backend;
  if (dtype != DType::kBool || !backend.computes()) return adopt_foreign(data, shape, dtype, release, context);
  if (!backend.host_readable()) return truths_of(adopt_foreign(data, shape, dtype, release, context));
  if (!holds_other_bytes(data, shape.size())) return adopt_foreign(data, shape, dtype, release, context);
  const NArray copy = record_data(data, shape, dtype);
  release(context);
  return copy;
}

NArray truths_of(const NArray& bools) { return bools != false; }

void make_truths(void* bools, std::int64_t n) {
  auto* bytes = static_cast<std::uint8_t*>(bools);
  for (std::int64_t i = 0; i < n; ++i) bytes[i] = bytes[i] != 0;
}

NArray adopt_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context) {
  Ref<Node> node = Ref<Node>::steal(new_data("from_foreign", shape, dtype));
  auto storage = storage_for(*node);
  storage->data = data;
  storage->foreign = context;
  storage->foreign_release = release;
  return hand_out_data(node.detach(), std::move(storage));
}

}  // namespace owl
