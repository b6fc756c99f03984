#include "autograd/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "autograd/records_for.h"
#include "graph/op.h"
#include "ops/create.h"
#include "owl/elewise.h"

namespace owl {

namespace {

bool may_run_twice(const OpRecord& op) { return !op.effect && !op.joins_devices && !op.copies_in; }

Operand number_as_operand(const Scalar& number) {
  Operand x(0.0);
  x.kind = static_cast<std::uint8_t>(number.kind);
  x.value = number.value;
  x.integer = number.integer;
  x.fits_int64 = number.kind != Scalar::Kind::kInt || std::isfinite(number.value);  // beyond it: recorded as infinity
  return x;
}

NArray first_element(const NArray& x) { return record_view(x, Shape{1}, 0, nullptr); }

// Makes the smallest of the arrays depend on `after`: the same values, computed later.
void delay(std::vector<NArray>& arrays, const NArray& after) {
  NArray* least = nullptr;
  for (NArray& x : arrays)
    if (x.has_value() && x.shape().size() > 0 && (!least || x.shape().size() < least->shape().size())) least = &x;
  if (!least) return;
  const NArray first = first_element(after);
  *least = elewise::where(first == first, *least, *least);
}

// While it lives, nothing is noted.
class Unnoted {
 public:
  Unnoted() : around_(std::exchange(noting, nullptr)) {}
  ~Unnoted() { noting = around_; }
  Unnoted(const Unnoted&) = delete;
  Unnoted& operator=(const Unnoted&) = delete;
  bool has_tapes_around() const { return around_; }

 private:
  Noting* const around_;
};

bool is_random(const Params* params) {
  const auto* made = dynamic_cast<const CreateParams*>(params);
  return made && made->random;
}

}  // namespace

// The operand is nothing to the operation: it is computed before.
NArray draw_after(const NArray& after, const OpRecord& op, std::shared_ptr<const Params> params) {
  return record(op, {first_element(after).node()}, std::move(params));
}

std::optional<std::uint32_t> Checkpoint::add(const Node& operation, std::span<Node* const> inputs,
                                             std::span<Node* const> results) {
  if (!may_run_twice(*operation.op)) return {};
  const std::lock_guard lock(mutex_);
  Node& first = *results[0];
  Mark& mark = (first.base ? *first.base : first).mark();
  Operation& added = operations_.emplace_back(Operation{operation.op, operation.params, operation.source,
                                                        operation.device, {first.shape, first.dtype},
                                                        results.size(), {}, Ref<Mark>::borrow(&mark)});
  for (std::size_t i = 0; i < inputs.size(); ++i)
    added.operands.push_back(operand_of(inputs[i], inputs[i] ? Scalar{} : operation.scalars[i]));
  const auto number = static_cast<std::uint32_t>(operations_.size() - 1);
  makers_.emplace(&mark, number);
  return number;
}

Checkpoint::Operand Checkpoint::operand_of(Node* node, const Scalar& number) const {
  Operand x;
  x.number = number;
  if (!node) return x;
  Slot slot;
  slot.set(*node);
  const auto found = makers_.find(slot.value().owner);
  if (found == makers_.end()) {
    node->retain_handle();
    x.outside = NArray::adopt(node);
    return x;
  }
  x.maker = found->second;
  x.result = slot.result;
  x.view = std::move(slot.view);
  x.shape = node->shape;
  x.constant = node->constant;
  return x;
}

bool Checkpoint::made(const Node& node) const {
  const std::lock_guard lock(mutex_);
  return makers_.contains(&owner_mark(const_cast<Node&>(node)));
}

std::vector<const Checkpoint::Operation*> Checkpoint::operations() const {
  const std::lock_guard lock(mutex_);
  std::vector<const Operation*> all;
  for (const Operation& each : operations_) all.push_back(&each);
  return all;
}

NArray Checkpoint::array_of(const Operand& x, const Values& values) {
  if (!x.maker) return x.outside;
  NArray array = values[*x.maker][x.result];
  if (x.view) {
    const bool is_dense = x.view->strides == x.shape.dense_strides();
    array = record_view(array, x.shape, x.view->offset, is_dense ? nullptr : &x.view->strides);
  }
  return x.constant ? record_alias(array, true) : array;
}

std::vector<NArray> Checkpoint::record_again(const Operation& operation, const Values& values, const NArray& after) {
  const RecordsFor records(*operation.device, operation.source);
  std::vector<NArray> arrays;
  for (const Operand& x : operation.operands) arrays.push_back(array_of(x, values));
  const bool is_first = std::ranges::none_of(operation.operands, [](const Operand& x) { return x.maker.has_value(); });
  if (is_first && after.device() == operation.device->id) {
    if (arrays.empty() && is_random(operation.params.get()))
      return {draw_after(after, *operation.op, operation.params)};
    delay(arrays, after);
  }
  std::vector<Node*> nodes;
  for (const NArray& x : arrays) nodes.push_back(x.node());
  if (operation.op->cls == OpRecord::Class::kElementwise) {
    if (operation.op->rule == TypeRule::kCast) return {record_cast(arrays[0], operation.type.dtype)};
    std::vector<owl::Operand> operands;
    for (std::size_t i = 0; i < arrays.size(); ++i)
      operands.push_back(nodes[i] ? owl::Operand(arrays[i]) : number_as_operand(operation.operands[i].number));
    return {record_elementwise(*operation.op, operands, &operation.type.shape)};
  }
  if (operation.result_count == 1) return {record(*operation.op, nodes, operation.params)};
  return record_all(*operation.op, nodes, operation.params);
}

std::vector<NArray> Checkpoint::replay(std::span<const Wanted> wanted, const NArray& after) const {
  constexpr std::uint32_t kNever = ~std::uint32_t{0};
  const auto all = operations();
  // By operation, the last one that reads its results; a wanted array is read at the end.
  std::vector<std::uint32_t> last(all.size(), kNever);
  const auto end = static_cast<std::uint32_t>(all.size());
  for (const Wanted& each : wanted) {
    if (each.is_result) last[each.operation] = end;
    else if (const auto maker = all[each.operation]->operands[each.index].maker) last[*maker] = end;
  }
  for (std::uint32_t n = end; n-- > 0;) {
    if (last[n] == kNever) continue;
    for (const Operand& x : all[n]->operands)
      if (x.maker && last[*x.maker] == kNever) last[*x.maker] = n;
  }
  std::vector<std::vector<std::uint32_t>> dropped(all.size());
  for (std::uint32_t n = 0; n < end; ++n)
    if (last[n] < end) dropped[last[n]].push_back(n);

  const Unnoted unnoted;  // the tapes around this backward pass have these operations already, from the forward pass
  Values values(all.size());
  for (std::uint32_t n = 0; n < end; ++n) {
    if (last[n] == kNever) continue;
    values[n] = record_again(*all[n], values, after);
    if (unnoted.has_tapes_around()) identify(owner_mark(*values[n][0].node()), *all[n]->mark);
    for (const std::uint32_t each : dropped[n]) values[each].clear();
  }
  std::vector<NArray> arrays;
  for (const Wanted& each : wanted) {
    if (each.is_result) arrays.push_back(values[each.operation][each.index]);
    else arrays.push_back(array_of(all[each.operation]->operands[each.index], values));
  }
  return arrays;
}

}  // namespace owl
