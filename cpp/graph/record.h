// Recording: the public functions call this to add an operation to the graph. Checks shapes and types at once, computes
// nothing, never waits for a value. The current device (owl::set_device) computes the operation; operands on other
// devices are copied there, once.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>

#include "base/module_api.h"
#include "graph/op.h"
#include "owl/narray.h"

namespace owl {

// ShapeError: the shape is Shape(), without axes.
void require_axes(const char* what, const Shape& shape);

// An operation of class kKernel. `op.infer` gives the result's shape and type.
OWL_MODULE_API NArray record(const OpRecord& op, std::span<Node* const> inputs,
                             std::shared_ptr<const Params> params = nullptr);
inline NArray record(const OpRecord& op, std::initializer_list<Node*> inputs,
                     std::shared_ptr<const Params> params = nullptr) {
  return record(op, std::span<Node* const>(inputs.begin(), inputs.size()), std::move(params));
}

// The same with several results, one array each.
OWL_MODULE_API std::vector<NArray> record_all(const OpRecord& op, std::span<Node* const> inputs,
                                              std::shared_ptr<const Params> params);

// Orders effects (OpRecord::effect): holds the token, the last result, of the effect recorded last with it. May be
// destroyed before they have run.
class EffectToken {
 public:
  OWL_MODULE_API EffectToken();

 private:
  friend struct EffectLink;
  NArray last_;
};

// An effect's results, then its token.
Results with_token(Results made);

// An effect's part in its token's order.
struct EffectLink {
  EffectToken& token;
  NArray next;  // the effect's token; once joined, that of the effect before it
  void join(Node& effect);  // under the lock of the window
};

// An operation with an effect: `inputs` and the results that it gives are without the tokens.
OWL_MODULE_API std::vector<NArray> record_effect(const OpRecord& op, std::span<Node* const> inputs,
                                                 std::shared_ptr<const Params> params, EffectToken& token);

// An operation of class kElementwise; broadcasts, promotes. At least one operand is an array. `over`, if given, is the
// result's shape, to which the operands broadcast.
OWL_MODULE_API NArray record_elementwise(const OpRecord& op, std::span<const Operand> operands,
                                         const Shape* over = nullptr);
// The conversion to another type (x itself if it already has the type).
NArray record_cast(const NArray& x, DType dtype);

// A view of x's memory: offset and strides in elements, relative to x's own first element and in absolute memory
// steps (not multiplied by x's strides). Strides null: dense. No operation is recorded.
OWL_MODULE_API NArray record_view(const NArray& x, const Shape& shape, std::int64_t offset, const Strides* strides);
// x as a node of its own, so that tapes tell the two apart: derived from x, or (constant) with no path to it.
OWL_MODULE_API NArray record_alias(const NArray& x, bool constant = false);
// The strides of x's value in memory, also if it is dense.
OWL_MODULE_API Strides strides_of(const Node& x);
OWL_MODULE_API extern const OpRecord op_copy, op_device_copy;  // copy.cpp
// x, or a dense copy if it is a strided view (copy.cpp).
NArray dense(const NArray& x);
// The value on another device: the cached copy, or one recorded now (copy.cpp).
NArray copy_to_device(Node* from, Device& to);
Ref<Node> on_device(Node* operand, Device& device);

// The current device, for a new node. DeviceError: the device was lost in a fork.
Device& device_for_recording();
// Puts the node into the window; takes the creator's reference.
NArray hand_out(Node* node);
// Memory for the node's value, not allocated yet.
Ref<Storage> storage_for(const Node& node);

// A ready value on the current device: takes a copy of host memory.
NArray record_data(const void* data, const Shape& shape, DType dtype);

// owl's bools are bytes 0 and 1, which kernels rely on. Imported memory may have any bytes, of which all but 0 mean
// true; record_data and from_foreign convert them.
//
// from_foreign without conversion, for GPU memory whose value is ordered (Backend::receive) before any reader.
OWL_MODULE_API NArray adopt_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context);
// Computes on the device whether each element is true.
OWL_MODULE_API NArray truths_of(const NArray& bools);
// The same in place, on the host.
void make_truths(void* bools, std::int64_t n);

}  // namespace owl
