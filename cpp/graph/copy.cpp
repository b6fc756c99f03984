// The copies that the recorder adds: of strided views for an operation that needs dense memory, and of values on
// another device. Their records are here; every backend has kernels for them.
#include "base/counters.h"
#include "device/device.h"
#include "graph/gradient.h"
#include "graph/record.h"
#include "graph/sink.h"

namespace owl {

namespace {

Results same_type(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

// Between devices the tape copies the gradient back.
constexpr Gradient copy_gradient{{}, [](Rule& r) { r.to(0, r.error()); }};

}  // namespace

const OpRecord op_copy{
    .name = "copy", .doc = "a dense copy of a strided view", .arity = 1, .infer = same_type, .gradient = &copy_gradient};
const OpRecord op_device_copy{.name = "device_copy",
                              .doc = "x on another device: recorded for operands on other devices",
                              .arity = 1,
                              .infer = same_type,
                              .copies_in = true,
                              .gradient = &copy_gradient};

NArray dense(const NArray& x) {
  if (!x.has_value()) throw Error("copy: an empty NArray has no value; assign one first");
  return x.node()->strides == nullptr ? x : record(op_copy, {x.node()});
}

NArray copy_to_device(Node* from, Device& to) {
  NArray source;
  Node* const named = from;
  if (from->alias) from = from->base;
  if (from->strides) {
    UseDevice there(*from->device);
    from->retain_handle();
    source = dense(NArray::adopt(from));
    from = source.node();
  }
  Node* node = Node::create();
  node->op = &op_device_copy;
  node->device = &to;
  node->shape = from->shape;
  node->dtype = from->dtype;
  node->source = current_source;
  node->set_inputs(std::span<Node* const>(&from, 1));
  count(counters.copies);
  if (noting) [[unlikely]] noting->note(*node, {&named, 1}, {&node, 1});
  return hand_out(node);
}

namespace {

// Such as a transpose: a strided view that has at least as many elements as its value.
bool shows_whole_value(const Node& x) {
  return x.strides && x.base && x.shape.size() >= x.whole_shape().size();
}

}  // namespace

Ref<Node> on_device(Node* operand, Device& device) {
  if (operand->device == &device) return Ref<Node>::borrow(operand);
  // The value is copied and viewed there in the same way: one copy serves all such views, and a kernel that reads its
  // operand through the strides gives the bits that it gives on the operand's own device.
  if (shows_whole_value(*operand)) {
    Node* value = operand->base;
    NArray result;
    if (value->results) {  // one of several
      operand->retain_handle();
      result = record_view(NArray::adopt(operand), operand->whole_shape(), -operand->offset, nullptr);
      value = result.node();
    }
    const Ref<Node> whole = on_device(value, device);
    whole->retain_handle();
    const NArray view = record_view(NArray::adopt(whole.get()), operand->shape, operand->offset, operand->strides.get());
    return Ref<Node>::borrow(view.node());
  }
  return sink().peer_copy_of(operand, &device, [](Node* from, Device* to) {
    const auto copy = copy_to_device(from, *to);
    return Ref<Node>::borrow(copy.node());
  });
}

}  // namespace owl
