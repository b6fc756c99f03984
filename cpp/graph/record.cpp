#include "graph/record.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "device/device.h"
#include "graph/sink.h"

namespace owl {

namespace {

Node* named_by(Node* in) { return in && in->alias ? in->base : in; }

// Replaces operands on other devices by their copies on this device, and aliases by what they name.
void set_inputs_on(Node* node, std::span<Node* const> inputs, Device& device) {
  bool here = true;
  for (Node* in : inputs) here &= !in || (in->device == &device && !in->alias);
  if (here) return node->set_inputs(inputs);
  std::vector<Ref<Node>> held;
  std::vector<Node*> moved;
  for (Node* in : inputs) {
    held.push_back(in ? on_device(named_by(in), device) : nullptr);
    moved.push_back(held.back().get());
  }
  node->set_inputs(moved);
}

// Before the node can be planned.
void note(Node& node, std::span<Node* const> inputs) {
  Node* const result = &node;
  if (noting) [[unlikely]] noting->note(node, inputs, {&result, 1});
}

Shape broadcast(const OpRecord& op, std::span<const Operand> operands) {
  const Shape* first = nullptr;
  bool same = true;
  for (auto& o : operands) {
    if (!o.node) continue;
    if (!first) first = &o.node->shape;
    else same = same && o.node->shape == *first;
  }
  if (same) return *first;
  std::int64_t lengths[kMaxAxes];
  int ndim = 0;
  for (auto& o : operands)
    if (o.node) ndim = std::max(ndim, o.node->shape.ndim());
  for (int axis = 0; axis < ndim; ++axis) {
    lengths[axis] = 1;
    for (auto& o : operands) {
      const auto n = o.node ? o.node->shape.at_or_one(axis) : 1;
      if (n == 1 || n == lengths[axis]) continue;
      if (lengths[axis] == 1) {
        lengths[axis] = n;
        continue;
      }
      std::string shapes;
      for (auto& s : operands)
        if (s.node) shapes += (shapes.empty() ? "" : " and ") + s.node->shape.str();
      throw ShapeError(std::string(op.name) + " of " + shapes + ": lengths " + std::to_string(lengths[axis]) + " and " +
                       std::to_string(n) + " of axis " + std::to_string(axis) +
                       " differ and neither is 1 (axes are aligned at the first)");
    }
  }
  return Shape(std::span<const std::int64_t>(lengths, static_cast<std::size_t>(ndim)));
}

struct Types {
  DType compute, result;
};

// The promotion table for arrays; a number promotes only a lower kind.
DType type_of(const OpRecord& op, std::span<const Operand> operands) {
  DType type = DType::kBool;
  std::uint8_t number = 0;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (op.rule == TypeRule::kSelect && i == 0) continue;
    if (operands[i].node) type = promote(type, operands[i].node->dtype);
    else number = std::max(number, operands[i].kind);
  }
  if (number == 2 && type == DType::kBool) return DType::kInt32;
  return number == 3 ? float_type(type) : type;
}

// Narrow types are computed in a wider one.
Types types_of(const OpRecord& op, std::span<const Operand> operands) {
  DType type = type_of(op, operands);
  switch (op.rule) {
    case TypeRule::kArithmetic:
    case TypeRule::kSelect: break;
    case TypeRule::kNoBool:
      if (type == DType::kBool)
        throw DTypeError(std::string(op.name) + " of bool arrays is not defined; use != for a difference, or astype");
      break;
    case TypeRule::kIntFromBool:
      if (type == DType::kBool) type = DType::kInt32;
      break;
    case TypeRule::kInteger:
      if (is_float(type))
        throw DTypeError(std::string(op.name) + " of " + std::string(name(type)) +
                         " is not defined, only of bools and integers; compare first, or use astype");
      break;
    case TypeRule::kFloat: type = float_type(type); break;
    case TypeRule::kCompare:
    case TypeRule::kPredicate: return {compute_type(type), DType::kBool};
    case TypeRule::kCast: break;
  }
  return {compute_type(type), type};
}

std::string text_of(const Operand& number) {
  if (number.fits_int64) return std::to_string(number.integer);
  const auto text = std::to_string(number.value);
  return text.substr(0, text.find('.'));
}

// A Python int outside the integer type is an error, as in NumPy.
void check_numbers(const OpRecord& op, std::span<const Operand> operands, DType type) {
  if (is_float(type) || op.rule == TypeRule::kCompare) return;
  for (auto& o : operands)
    if (!o.node && o.kind == 2 && type != DType::kBool && !o.fits(type))
      throw OverflowError(std::string(op.name) + ": the number " + text_of(o) + " does not fit " +
                          std::string(name(type)) + "; use astype('float64') first");
}

// Comparisons are right for any int: one that the type of computing cannot hold is larger, or smaller, than all that it
// can, as infinity is.
bool exceeds(const OpRecord& op, const Operand& o, DType compute) {
  return op.rule == TypeRule::kCompare && !o.node && o.kind == 2 && !is_float(compute) && compute != DType::kBool &&
         !o.fits(compute);
}

Scalar scalar_of(const Operand& number, bool exceeds) {
  const auto kind = static_cast<Scalar::Kind>(number.kind);
  if (exceeds) return {kind, std::copysign(HUGE_VAL, number.value)};
  return {kind, number.value, number.integer};
}

}  // namespace

void require_axes(const char* what, const Shape& shape) {
  if (shape.ndim() == 0)
    throw ShapeError(std::string(what) + ": shape []: owl has no 0-d arrays; a single value has shape [1]");
}

Device& device_for_recording() {
  Device& device = sink().current_device();
  device.require_own_process();
  return device;
}

NArray hand_out(Node* node) {
  node->retain_handle();
  auto handle = NArray::adopt(node);
  sink().append(node);  // takes the creator's reference
  return handle;
}

namespace {

Ref<Node> new_node(const OpRecord& op, Device& device, const Shape& shape, DType dtype, DType compute) {
  auto node = Ref<Node>::steal(Node::create());
  node->op = &op;
  node->device = &device;
  node->shape = shape;
  node->dtype = dtype;
  node->compute = compute;
  node->source = current_source;
  return node;
}

// A handle on a new node for a result of `base`, or for a view of one.
NArray hand_out_part(Node& base, std::uint16_t result, Device& device, const Shape& shape, DType dtype,
                     std::int64_t offset, const Strides* strides) {
  Node* node = Node::create();
  node->set_base(base, result);
  node->device = &device;
  node->shape = shape;
  node->dtype = node->compute = dtype;
  node->source = current_source;
  node->offset = offset;
  if (strides) node->strides = std::make_unique<const Strides>(*strides);
  node->retain_handle();
  node->release();  // the creator's reference
  return NArray::adopt(node);
}

}  // namespace

NArray record(const OpRecord& op, std::span<Node* const> inputs, std::shared_ptr<const Params> params) {
  assert(!op.effect);
  Device& device = device_for_recording();
  const ResultType made = op.infer(inputs, params.get()).first;
  require_axes(op.name, made.shape);
  auto node = new_node(op, device, made.shape, made.dtype, made.dtype);
  node->params = std::move(params);
  set_inputs_on(node.get(), inputs, device);  // may copy between devices; the wait for that may be interrupted
  note(*node, inputs);
  return hand_out(node.detach());
}

namespace {

// A node with several results, and a handle on each of these: not in the window yet.
struct WithResults {
  Ref<Node> node;
  std::vector<NArray> results;
};

WithResults new_with_results(const OpRecord& op, std::span<Node* const> inputs, std::shared_ptr<const Params> params,
                             const Results& made) {
  Device& device = device_for_recording();
  for (std::size_t i = 0; i < made.size(); ++i) require_axes(op.name, made[i].shape);
  auto node = new_node(op, device, made.first.shape, made.first.dtype, made.first.dtype);
  node->params = std::move(params);
  node->make_results(made.size());
  if (op.joins_devices) node->set_inputs(inputs);
  else set_inputs_on(node.get(), inputs, device);
  std::vector<NArray> results;
  for (std::size_t i = 0; i < made.size(); ++i) {
    Device& its = made[i].device ? *made[i].device : device;
    node->results[i].shape = made[i].shape;
    results.push_back(
        hand_out_part(*node, static_cast<std::uint16_t>(i), its, made[i].shape, made[i].dtype, 0, nullptr));
  }
  return {std::move(node), std::move(results)};
}

// Before the node can be planned.
void note(Node& node, std::span<Node* const> inputs, std::span<const NArray> results) {
  if (!noting) [[likely]] return;
  std::vector<Node*> nodes;
  for (const NArray& each : results) nodes.push_back(each.node());
  noting->note(node, inputs, nodes);
}

}  // namespace

std::vector<NArray> record_all(const OpRecord& op, std::span<Node* const> inputs,
                               std::shared_ptr<const Params> params) {
  assert(!op.effect);
  const Results made = op.infer(inputs, params.get());
  auto [node, results] = new_with_results(op, inputs, std::move(params), made);
  note(*node, inputs, results);
  sink().append(node.detach());
  return results;
}

Results with_token(Results made) {
  made.more.push_back({Shape{0}, DType::kBool});
  return made;
}

EffectToken::EffectToken() : last_(record_data(nullptr, Shape{0}, DType::kBool)) {}

void EffectLink::join(Node& effect) {
  effect.set_last_input(*token.last_.node());
  std::swap(token.last_, next);
}

std::vector<NArray> record_effect(const OpRecord& op, std::span<Node* const> inputs,
                                  std::shared_ptr<const Params> params, EffectToken& token) {
  assert(op.effect);
  const Results made = with_token(op.infer(inputs, params.get()));
  std::vector<Node*> operands(inputs.begin(), inputs.end());
  operands.push_back(nullptr);  // the token
  auto [node, results] = new_with_results(op, operands, std::move(params), made);
  EffectLink link{token, std::move(results.back())};
  results.pop_back();
  note(*node, inputs, results);
  sink().append(node.detach(), &link);
  return results;
}

NArray record_elementwise(const OpRecord& op, std::span<const Operand> operands, const Shape* over) {
  Device& device = device_for_recording();
  auto types = types_of(op, operands);
  check_numbers(op, operands, types.result);
  bool all_fit = true;
  for (auto& o : operands) all_fit = all_fit && !exceeds(op, o, types.compute);
  if (!all_fit) [[unlikely]] types.compute = DType::kFloat64;
  if (op.check) op.check(op, operands);
  auto node = new_node(op, device, over ? *over : broadcast(op, operands), types.result, types.compute);
  Node* inputs[kInlineInputs] = {};
  for (std::size_t i = 0; i < operands.size(); ++i) {
    inputs[i] = operands[i].node;
    if (!inputs[i]) node->scalars[i] = scalar_of(operands[i], !all_fit);
  }
  const std::span<Node* const> named(inputs, operands.size());
  set_inputs_on(node.get(), named, device);
  note(*node, named);
  return hand_out(node.detach());
}

NArray record_cast(const NArray& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Device& device = device_for_recording();
  auto node = new_node(elementwise_op(kCastCode), device, x.shape(), dtype, x.dtype());
  Node* const input = x.node();
  set_inputs_on(node.get(), std::span<Node* const>(&input, 1), device);
  note(*node, std::span<Node* const>(&input, 1));
  return hand_out(node.detach());
}

namespace {

constexpr std::size_t kMostAncestors = 64;  // of views made of views, all of which are held

// So that a tape knows what a view that is a source was used through. Those that nothing can name any more are left
// out.
void note_ancestors(Node& from, Node& view) {
  if (!from.base) return;
  auto all = std::make_shared<std::vector<Ref<Mark>>>();
  if (from.made_of)
    for (const auto& mark : *from.made_of)
      if (mark->alive.load(std::memory_order_relaxed)) all->push_back(mark);
  if (all->size() == kMostAncestors) all->erase(all->begin());
  all->push_back(Ref<Mark>::borrow(&from.mark()));
  view.made_of = std::move(all);
}

}  // namespace

NArray record_view(const NArray& x, const Shape& shape, std::int64_t offset, const Strides* strides) {
  Node& from = *x.node();
  NArray made =
      hand_out_part(from.base ? *from.base : from, from.result, *from.device, shape, from.dtype, from.offset + offset, strides);
  Node& view = *made.node();
  // A view of a view that shows the whole value in its own order again, such as x.T.T: operations read the value.
  view.alias = !view.base->results && view.offset == 0 && !view.strides && view.shape == view.base->shape;
  view.constant = from.constant;
  note_ancestors(from, view);
  return made;
}

NArray record_alias(const NArray& x, bool constant) {
  Node& from = *x.node();
  NArray made = hand_out_part(from.base ? *from.base : from, from.result, *from.device, from.shape, from.dtype, from.offset,
                              from.strides.get());
  made.node()->alias = !from.base || from.alias;
  made.node()->constant = constant || from.constant;
  note_ancestors(from, *made.node());
  return made;
}

Ref<Storage> storage_for(const Node& node) {
  return Storage::create(*node.device, node.shape, node.dtype, node.op ? node.op->name : "data", node.source);
}

Strides strides_of(const Node& x) { return x.strides ? *x.strides : x.shape.dense_strides(); }

}  // namespace owl
