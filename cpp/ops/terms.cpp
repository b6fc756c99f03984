#include "ops/terms.h"

#include <vector>

#include "device/device.h"
#include "graph/record.h"
#include "owl/elewise.h"

namespace owl {

namespace {

bool is_one(const Term& a) { return a.is_number() && a.number() == 1; }

// Of a number that meets no array with its type.
NArray typed(double number, DType type) { return full({1}, number, type); }

}  // namespace

Term add(const Term& a, const Term& b) {
  if (a.is_zero()) return b;
  if (b.is_zero()) return a;
  if (a.is_number() && b.is_number()) return a.number() + b.number();
  return a.operand() + b.operand();
}

Term sub(const Term& a, const Term& b) {
  if (b.is_zero()) return a;
  if (a.is_zero()) return neg(b);
  if (a.is_number() && b.is_number()) return a.number() - b.number();
  return a.operand() - b.operand();
}

Term mul(const Term& a, const Term& b) {
  if (a.is_zero() || b.is_zero()) return {};
  if (a.is_number() && b.is_number()) return a.number() * b.number();
  if (is_one(a)) return b;
  if (is_one(b)) return a;
  return elewise::mult(a.operand(), b.operand());
}

Term div(const Term& a, const Term& b) {
  if (a.is_zero()) return {};
  if (a.is_number() && b.is_number()) return a.number() / b.number();
  if (is_one(b)) return a;
  return a.operand() / b.operand();
}

Term neg(const Term& a) {
  if (a.is_zero()) return {};
  if (a.is_number()) return -a.number();
  return -a.array();
}

Term select(const NArray& condition, const Term& a, const Term& b, DType type) {
  if (a.is_array() || b.is_array()) return elewise::where(condition, a.operand(), b.operand());
  if (a.is_zero() && b.is_zero()) return {};
  return elewise::where(condition, typed(a.number(), type), b.operand());
}

Term keep(const NArray& condition, const Term& a, DType type) {
  if (a.is_number()) return mul(a, condition.astype(type));
  return select(condition, a, {}, type);
}

NArray to_array(const Term& a, const Shape& shape, DType type) {
  if (!a.is_array()) return full(shape, a.number(), type);
  const Term whole = broadcast_to(a, shape);
  return record_cast(whole.array(), type);
}

Term broadcast_to(const Term& a, const Shape& shape) {
  if (!a.is_array() || a.array().shape() == shape) return a;
  const Operand operands[] = {a.array(), 1.0};
  return record_elementwise(*find_op("mult"), operands, &shape);
}

Term sum_to(const Term& a, const Shape& from, const Shape& shape) {
  if (a.is_zero() || from == shape) return a;
  if (a.is_number()) return a.number() * (static_cast<double>(from.size()) / static_cast<double>(shape.size()));
  std::vector<std::int64_t> axes;
  for (int i = 0; i < from.ndim(); ++i)
    if (shape.at_or_one(i) == 1 && from[i] != 1) axes.push_back(i);
  NArray sum = axes.empty() ? a.array() : a.array().sum(axes);
  if (sum.ndim() == shape.ndim()) return sum;
  return sum.reshape(std::vector<std::int64_t>(shape.begin(), shape.end()));
}

// On the result's device, which may be another than the operation's.
NArray Rule::error_array(std::size_t i) const {
  const ResultType& type = result_type(i);
  const UseDevice there(*type.device);
  return to_array(error(i), type.shape, type.dtype);
}

}  // namespace owl
