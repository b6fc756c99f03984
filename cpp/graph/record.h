// Recording: what the public functions call to put an operation into the graph. Checks shapes and types at once,
// computes nothing, never waits for a value. The current device (owl::set_device) computes; operands that live on
// another device are copied there, once.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>

#include "base/module_api.h"
#include "graph/op.h"
#include "owl/narray.h"

namespace owl {

// ShapeError: Shape(), which has no axes.
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

// What orders effects (OpRecord::effect): the last result of the one that was recorded last with it. It may go before
// they have run.
class EffectToken {
 public:
  OWL_MODULE_API EffectToken();

 private:
  friend struct EffectLink;
  NArray last_;
};

// What an effect makes: its results, then its token.
Results with_token(Results made);

// An effect's part in its token's order.
struct EffectLink {
  EffectToken& token;
  NArray next;  // the effect's last result; once joined, what it follows
  void join(Node& effect);  // under the lock of the window
};

// An operation with an effect: `inputs` and the results that it gives are without the tokens.
OWL_MODULE_API std::vector<NArray> record_effect(const OpRecord& op, std::span<Node* const> inputs,
                                                 std::shared_ptr<const Params> params, EffectToken& token);

// An operation of class kElementwise; broadcasts, promotes. At least one operand is an array.
OWL_MODULE_API NArray record_elementwise(const OpRecord& op, std::span<const Operand> operands);
// The conversion to another type (x itself where it has the type already).
NArray record_cast(const NArray& x, DType dtype);

// A view of x's memory: offset and strides in elements, relative to x's own first element and in absolute memory
// steps (not multiplied by x's strides). Strides null: dense. No operation is recorded.
OWL_MODULE_API NArray record_view(const NArray& x, const Shape& shape, std::int64_t offset, const Strides* strides);
// The strides of x's value in memory (dense ones where x is dense).
OWL_MODULE_API Strides strides_of(const Node& x);
OWL_MODULE_API extern const OpRecord op_copy, op_device_copy;  // copy.cpp
// x, or a dense copy of it where it is a strided view (copy.cpp).
NArray dense(const NArray& x);
// The value on another device: copied there now, or the copy that is kept beside it, made on first use (copy.cpp).
NArray copy_to_device(Node* from, Device& to);
Ref<Node> on_device(Node* operand, Device& device);

// The current device, to which a node that is about to be recorded belongs. DeviceError where a fork has lost it.
Device& device_for_recording();
// Puts the node into the window; takes the creator's reference.
NArray hand_out(Node* node);
// Memory for the node's value, not allocated yet.
Ref<Storage> storage_for(const Node& node);

// A ready value on the current device: takes a copy of host memory.
NArray record_data(const void* data, const Shape& shape, DType dtype);

// The memory of a bool holds 0 and 1 only: kernels rely on it. Memory of others may hold any bytes, of which all but 0 mean
// true; record_data and from_foreign see to it.
//
// from_foreign for memory of a GPU that brings its value (Backend::receive) before anything reads it: as it is.
OWL_MODULE_API NArray adopt_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context);
// On the device: whether each element is true.
OWL_MODULE_API NArray truths_of(const NArray& bools);
// In place, on the host.
void make_truths(void* bools, std::int64_t n);

}  // namespace owl
