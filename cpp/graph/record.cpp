#include "graph/record.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/tile.h"
#include "runtime/counters.h"
#include "runtime/engine.h"
#include "runtime/scheduler.h"
#include "runtime/task.h"

namespace owl {

extern const OpRecord op_device_copy;

namespace {

constexpr double kInt32Min = -2147483648.0, kInt32Max = 2147483647.0;

NArray hand_out(Node* node) {
  node->retain_handle();
  auto handle = NArray::adopt(node);
  Engine::get().append(node);  // takes the creator's reference
  return handle;
}

Device& device_for_recording() {
  Device& device = Engine::get().current();
  device.require_own_process();
  return device;
}

NArray make_copy(Node* from, Device* to) {
  NArray source;
  if (from->strides) {
    UseDevice there(*from->device);
    from->retain_handle();
    source = dense(NArray::adopt(from));
    from = source.node();
  }
  Node* node = Node::create();
  node->op = &op_device_copy;
  node->device = to;
  node->shape = from->shape;
  node->dtype = from->dtype;
  node->source = current_source;
  node->set_inputs(std::span<Node* const>(&from, 1));
  count(counters.copies);
  return hand_out(node);
}

Ref<Node> make_peer_copy(Node* from, Device* to) {
  const auto copy = make_copy(from, to);
  return Ref<Node>::borrow(copy.node());
}

// The operand, or its copy on the device that computes.
Ref<Node> on_device(Node* operand, Device& device) {
  if (operand->device == &device) return Ref<Node>::borrow(operand);
  return Engine::get().peer_copy_of(operand, &device, make_peer_copy);
}

void set_inputs_on(Node* node, std::span<Node* const> inputs, Device& device) {
  bool here = true;
  for (Node* in : inputs) here &= !in || in->device == &device;
  if (here) return node->set_inputs(inputs);
  std::vector<Ref<Node>> held;
  std::vector<Node*> moved;
  for (Node* in : inputs) {
    held.push_back(in ? on_device(in, device) : nullptr);
    moved.push_back(held.back().get());
  }
  node->set_inputs(moved);
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

// The promotion table: arrays by bool < int32 < float32 < float64; numbers only lift a weaker kind.
Types types_of(const OpRecord& op, std::span<const Operand> operands) {
  DType type = DType::kBool;
  std::uint8_t number = 0;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (op.rule == TypeRule::kSelect && i == 0) continue;
    if (operands[i].node) type = promote(type, operands[i].node->dtype);
    else number = std::max(number, operands[i].kind);
  }
  if (number == 2) type = promote(type, DType::kInt32);
  if (number == 3) type = promote(type, DType::kFloat32);
  switch (op.rule) {
    case TypeRule::kArithmetic:
    case TypeRule::kSelect: return {type, type};
    case TypeRule::kNoBool:
      if (type == DType::kBool)
        throw DTypeError(std::string(op.name) + " of bool arrays is not defined; use != for a difference, or astype");
      return {type, type};
    case TypeRule::kIntFromBool: type = promote(type, DType::kInt32); return {type, type};
    case TypeRule::kFloat: type = promote(type, DType::kFloat32); return {type, type};
    case TypeRule::kCompare: return {type, DType::kBool};
    case TypeRule::kPredicate: return {type, DType::kBool};
    case TypeRule::kCast: break;
  }
  return {type, type};
}

std::string integer_text(double value) {
  const auto text = std::to_string(value);
  return text.substr(0, text.find('.'));
}

// A Python int that int32 cannot hold: NumPy's answer. A comparison is still meaningful and is done in float64.
void check_numbers(const OpRecord& op, std::span<const Operand> operands, Types& types) {
  if (types.compute != DType::kInt32) return;
  for (auto& o : operands) {
    if (o.node || o.kind == 0 || (o.value >= kInt32Min && o.value <= kInt32Max)) continue;
    if (op.rule != TypeRule::kCompare)
      throw OverflowError(std::string(op.name) + ": the number " + integer_text(o.value) +
                          " does not fit int32; use astype('float64') first");
    types.compute = DType::kFloat64;
  }
}

}  // namespace

void require_axes(const char* what, const Shape& shape) {
  if (shape.ndim() == 0)
    throw ShapeError(std::string(what) + ": shape []: owl has no 0-d arrays; a single value has shape [1]");
}

NArray record(const OpRecord& op, std::span<Node* const> inputs, std::unique_ptr<const Params> params) {
  Device& device = device_for_recording();
  const auto [shape, dtype] = op.infer(inputs, params.get());
  require_axes(op.name, shape);
  auto node = Ref<Node>::steal(Node::create());
  node->op = &op;
  node->device = &device;
  node->shape = shape;
  node->dtype = node->compute = dtype;
  node->params = std::move(params);
  node->source = current_source;
  if (op.joins_devices) node->set_inputs(inputs);
  else set_inputs_on(node.get(), inputs, device);  // may copy between devices, and there be interrupted
  return hand_out(node.detach());
}

NArray record_elementwise(const OpRecord& op, std::span<const Operand> operands) {
  Device& device = device_for_recording();
  auto types = types_of(op, operands);
  check_numbers(op, operands, types);
  if (op.check) op.check(op, operands);
  const Shape shape = broadcast(op, operands);
  auto node = Ref<Node>::steal(Node::create());
  node->op = &op;
  node->device = &device;
  node->shape = shape;
  node->compute = types.compute;
  node->dtype = types.result;
  node->source = current_source;
  Node* inputs[kInlineInputs] = {};
  for (std::size_t i = 0; i < operands.size(); ++i) {
    inputs[i] = operands[i].node;
    if (!inputs[i]) node->scalars[i] = {static_cast<Scalar::Kind>(operands[i].kind), operands[i].value};
  }
  set_inputs_on(node.get(), std::span<Node* const>(inputs, operands.size()), device);
  return hand_out(node.detach());
}

NArray record_cast(const NArray& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  static const OpRecord& cast = *find_op("cast");
  Device& device = device_for_recording();
  auto node = Ref<Node>::steal(Node::create());
  node->op = &cast;
  node->device = &device;
  node->shape = x.shape();
  node->compute = x.dtype();
  node->dtype = dtype;
  node->source = current_source;
  Node* const input = x.node();
  set_inputs_on(node.get(), std::span<Node* const>(&input, 1), device);
  return hand_out(node.detach());
}

NArray record_view(const NArray& x, const Shape& shape, std::int64_t offset, const Strides* strides) {
  Node* from = x.node();
  Node* node = Node::create();
  node->base = from->base ? from->base : from;
  node->base->retain_handle();
  node->device = from->device;
  node->shape = shape;
  node->dtype = node->compute = from->dtype;
  node->source = current_source;
  node->offset = from->offset + offset;
  if (strides) node->strides = std::make_unique<const Strides>(*strides);
  node->retain_handle();
  node->release();  // the creator's reference
  return NArray::adopt(node);
}

Strides strides_of(const Node& x) { return x.strides ? *x.strides : x.shape.dense_strides(); }

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

// Whether memory of bools holds another byte than 0 and 1.
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
  auto storage = Storage::create(*node);
  if (node->device->backend->computes()) {
    allocate_for_data(*storage);
    std::vector<std::uint8_t> truths;
    if (dtype == DType::kBool && holds_other_bytes(data, shape.size())) {
      const auto* bytes = static_cast<const std::uint8_t*>(data);
      truths.assign(bytes, bytes + shape.size());
      make_truths(truths.data(), shape.size());
      data = truths.data();
    }
    if (storage->bytes > 0) node->device->backend->upload(*storage, data);
  }
  return hand_out_data(node.detach(), std::move(storage));
}

NArray from_foreign(void* data, const Shape& shape, DType dtype, void (*release)(void*), void* context) {
  const Backend& backend = *device_for_recording().backend;
  if (dtype != DType::kBool || !backend.computes()) return adopt_foreign(data, shape, dtype, release, context);
  if (backend.gpu() >= 0) return truths_of(adopt_foreign(data, shape, dtype, release, context));
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
  auto storage = Storage::create(*node);
  storage->data = data;
  storage->foreign = context;
  storage->foreign_release = release;
  return hand_out_data(node.detach(), std::move(storage));
}

// ---- copies between devices

namespace {

constexpr std::int64_t kCopyChunk = 1 << 20;  // bytes

void copy_from_peer(const KernelArgs& args, Launch& launch) {
  const auto bytes = static_cast<std::int64_t>(args.out.nbytes());
  const TaskOperand& source = launch.task->inputs[0];
  if (source.storage->device->backend->gpu() >= 0)
    return launch.stage(1, [&source, to = args.out.data, bytes](std::int64_t) {
      source.storage->device->backend->download(to, *source.storage, source.byte_offset(),
                                                static_cast<std::size_t>(bytes));
    });
  launch.stage((bytes + kCopyChunk - 1) / kCopyChunk,
               [bytes, from = args.in[0].as<std::byte>(), to = args.out.as<std::byte>()](std::int64_t chunk) {
                 const auto begin = chunk * kCopyChunk;
                 std::memcpy(to + begin, from + begin, static_cast<std::size_t>(std::min(kCopyChunk, bytes - begin)));
               });
}

std::pair<Shape, DType> same_type(std::span<Node* const> in, const Params*) { return {in[0]->shape, in[0]->dtype}; }

}  // namespace

const OpRecord op_device_copy{.name = "device_copy",
                              .doc = "x on another device: recorded by itself where operands live apart",
                              .arity = 1,
                              .infer = same_type,
                              .cpu = copy_from_peer,
                              .copies_in = true};

// ---- NArray: the handle

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
  Device& target = Engine::get().device(device);
  if (checked(node_).device == &target) return *this;
  return make_copy(node_, &target);
}

void NArray::start_eval() const {
  checked(node_);
  Engine::get().start(node_);
}

bool NArray::wait_for_eval(std::optional<double> timeout_s) const {
  checked(node_);
  return Engine::get().wait(node_, timeout_s);
}

bool NArray::ready() const {
  const Storage* storage = checked(node_).storage();
  return storage && storage->state.load(std::memory_order_acquire) != Storage::State::kPending &&
         storage->device->backend->there(*storage);
}

void NArray::copy_to_host(void* destination) const {
  auto& backend = *checked(node_).device->backend;
  if (backend.gpu() >= 0 && node_->strides) {
    UseDevice there(*node_->device);
    const Source caller = std::exchange(current_source, node_->source);  // its errors are the view's
    const NArray whole = dense(*this);
    current_source = caller;
    return whole.copy_to_host(destination);
  }
  wait_for_eval();
  if (!backend.computes())
    throw DeviceError("device " + std::to_string(device()) + " is the null device: it plans, but has no values");
  const auto offset = node_->offset * static_cast<std::int64_t>(itemsize(dtype()));
  if (backend.gpu() >= 0)
    return backend.download(destination, *node_->storage(), static_cast<std::size_t>(offset),
                            static_cast<std::size_t>(size()) * itemsize(dtype()));
  const auto* data = static_cast<const std::byte*>(node_->storage()->data) + offset;
  Program copy;
  copy.shape = shape();
  copy.inputs.push_back({dtype(), strides_of(*node_), node_->strides == nullptr});
  copy.outputs.push_back({0, dtype()});
  const void* in = data;
  cpu::run_program(copy, &in, &destination);
}

double NArray::item() const {
  if (size() != 1)
    throw ShapeError("an array of shape " + shape().str() + " has " + std::to_string(size()) +
                     " elements; only an array of one element is a number");
  alignas(8) std::byte value[8];
  copy_to_host(value);
  switch (dtype()) {
    case DType::kBool: return *reinterpret_cast<std::uint8_t*>(value);
    case DType::kInt32: return *reinterpret_cast<std::int32_t*>(value);
    case DType::kFloat32: return *reinterpret_cast<float*>(value);
    case DType::kFloat64: return *reinterpret_cast<double*>(value);
  }
  return 0;
}

}  // namespace owl
