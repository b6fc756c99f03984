// The key says whether tasks may be joined, and names each operation, its shape, types, device, parameters and operands,
// and which values are held. Operands are named by position: where one is new, its description follows. Left out is what
// a plan takes from the batch that it is made for (plan/fill_in.h): the numbers themselves (equal ones must be equal
// again, for a program has each once), offsets of views, and where operations were recorded.
#include "plan/plan_key.h"

#include <bit>
#include <string_view>
#include <typeinfo>
#include <utility>
#include <variant>

#include "device/device.h"

namespace owl::planner {

namespace {

constexpr std::size_t kMostNumbers = 64;

enum Kind : std::uint64_t { kNumber = 1, kOperation, kOther, kNewOther };  // of an operand

template <class T> std::uint64_t bits(const T* address) {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(address));
}

class Writer {
 public:
  explicit Writer(PlanKey& key) : key_(key) {}

  bool write(const Batch& batch) {
    add(batch.may_join);
    for (const Node* node : batch.nodes) {
      write_operation(*node);
      const auto inputs = node->inputs();
      for (std::size_t i = 0; i < inputs.size(); ++i)
        if (inputs[i]) write_operand(*inputs[i]);
        else if (!write_number(node->scalars[i])) return false;
    }
    return true;
  }

 private:
  void add(std::uint64_t word) { key_.push_back(word); }

  void write_operation(const Node& node) {
    const bool same_shape = shape_ && *shape_ == node.shape, same_device = device_ == node.device;
    add(bits(node.op));
    add(static_cast<std::uint64_t>(node.dtype) | static_cast<std::uint64_t>(node.compute) << 8 |
        std::uint64_t{node.input_count} << 16 | std::uint64_t{node.traced} << 48 |
        std::uint64_t{node.plan.has_handle} << 49 | std::uint64_t{node.plan.held} << 50 |
        std::uint64_t{node.params != nullptr} << 51 | std::uint64_t{node.results != nullptr} << 52 |
        std::uint64_t{same_shape} << 53 | std::uint64_t{same_device} << 54);
    if (!same_shape) write_shape(node.shape);
    if (!same_device) write_device(*node.device);
    shape_ = &node.shape;
    device_ = node.device;
    if (node.params) write_params(*node.params);
    if (node.results)
      for (std::uint16_t i = 0; i < node.result_count; ++i) add(node.results[i].wanted);
  }

  void write_shape(const Shape& shape) {
    add(static_cast<std::uint64_t>(shape.ndim()));
    for (const auto length : shape) add(static_cast<std::uint64_t>(length));
  }

  void write_device(const Device& device) {
    add(bits(&device));
    add(device.allocator.limit());  // how much of what is computed for one program may wait for it
  }

  void write_params(const Params& params) {
    add(bits(&typeid(params)));
    params.visit([this](const char*, const ParamValue& value) {
      add(value.index());
      std::visit([this](const auto& v) { write_value(v); }, value);
    });
  }
  void write_value(bool value) { add(value); }
  void write_value(std::int64_t value) { add(static_cast<std::uint64_t>(value)); }
  void write_value(double value) { add(std::bit_cast<std::uint64_t>(value)); }
  void write_value(DType value) { add(static_cast<std::uint64_t>(value)); }
  void write_value(const void* value) { add(bits(value)); }
  void write_value(std::string_view value) {
    add(value.size());
    for (const char c : value) add(static_cast<unsigned char>(c));
  }
  void write_value(const std::vector<std::int64_t>& values) {
    add(values.size());
    for (const auto v : values) add(static_cast<std::uint64_t>(v));
  }

  // --- operands

  void write_operand(const Node& in) {
    if (in.plan.index >= 0) return add(kOperation | static_cast<std::uint64_t>(in.plan.index) << 8);
    const auto which = static_cast<std::size_t>(in.plan.other);
    if (which < others_) return add(kOther | which << 8);
    ++others_;
    write_new(in);
  }

  // What it is a view of, if that is in the batch. A plan reads the rest of what comes from outside from its memory.
  void write_new(const Node& in) {
    const auto base = in.base && in.base->plan.index >= 0 ? static_cast<std::uint64_t>(in.base->plan.index) + 1 : 0;
    const bool is_view = in.base != nullptr;
    add(kNewOther | static_cast<std::uint64_t>(in.dtype) << 8 | std::uint64_t{in.strides != nullptr} << 16 |
        std::uint64_t{is_view} << 17 | std::uint64_t{in.traced} << 18 | std::uint64_t{in.plan.has_handle} << 19 |
        base << 24 | std::uint64_t{in.result} << 48);
    add(bits(in.device));
    write_shape(in.shape);
    if (in.strides)
      for (int axis = 0; axis < in.shape.ndim(); ++axis) add(static_cast<std::uint64_t>((*in.strides)[static_cast<std::size_t>(axis)]));
  }

  // Which of the batch's different numbers it is.
  bool write_number(const Scalar& number) {
    std::size_t i = 0;
    while (i < numbers_.size() && !is_same_number(*numbers_[i], number)) ++i;
    if (i == numbers_.size()) {
      if (i == kMostNumbers) return false;
      numbers_.push_back(&number);
    }
    add(kNumber | i << 8);
    return true;
  }

  PlanKey& key_;
  const Shape* shape_ = nullptr;  // of the operation before, and its device
  const Device* device_ = nullptr;
  std::size_t others_ = 0;        // described so far
  std::vector<const Scalar*> numbers_;
};

}  // namespace

bool write_key(const Batch& batch, PlanKey& key) {
  key.clear();
  return Writer(key).write(batch);
}

}  // namespace owl::planner
