// The records of the elementwise operations and the public functions that record them.
#include "ops/elementwise.h"

#include <cstdio>
#include <unordered_map>

#include "graph/record.h"
#include "ops/records.h"
#include "owl/elewise.h"

namespace owl {

namespace {

using namespace elementwise_ops;

// The last operand's name and its value where it is left out.
struct Parameter {
  const char* name = nullptr;
  double fallback = 0;
};
template <class Op> constexpr Parameter parameter_of{};
#define OWL_PARAMETER(NAME, STRUCT, PARAMETER, VALUE) \
  template <> constexpr Parameter parameter_of<STRUCT>{#PARAMETER, VALUE};
OWL_ELEWISE_PARAMETRIC(OWL_PARAMETER)
#undef OWL_PARAMETER

void check_limits(const OpRecord& op, std::span<const Operand> operands) {
  const Operand &low = operands[1], &high = operands[2];
  if (low.node || high.node || !(low.value > high.value)) return;
  char values[64];
  std::snprintf(values, sizeof values, "%.9g and %.9g", low.value, high.value);
  throw ValueError(std::string(op.name) + ": low must not be above high, got " + values);
}
template <class Op> constexpr CheckFn check_of = nullptr;
template <> constexpr CheckFn check_of<Clip> = check_limits;

template <class... Ops> struct Records;
template <class... Ops> struct Records<OpList<Ops...>> {
  template <class Op> static constexpr OpRecord make(std::uint16_t code) {
    const ElementwiseInfo& info = Op::info;
    OpRecord r{};
    r.name = info.name;
    r.doc = info.doc;
    r.cls = OpRecord::Class::kElementwise;
    r.arity = info.arity;
    r.rule = info.rule;
    r.code = code;
    r.in_elewise = info.in_elewise;
    r.parameter = parameter_of<Op>.name;
    r.fallback = parameter_of<Op>.fallback;
    r.check = check_of<Op>;
    r.gradient = &elementwise_gradients[code];
    return r;
  }
  template <class Op> static constexpr std::uint16_t code_of() {
    std::uint16_t code = 0;
    bool found = false;
    ((found = found || __is_same(Op, Ops), code = static_cast<std::uint16_t>(code + !found)), ...);
    return code;
  }
  // Constant data: nothing runs at start-up, and using one costs no check.
  static constexpr OpRecord records[] = {make<Ops>(code_of<Ops>())...};
};

template <class Op> const OpRecord& record_of() { return Records<All>::records[Records<All>::code_of<Op>()]; }
static_assert(Records<All>::code_of<Cast>() == kCastCode);

template <class Op> NArray apply(const Operand& a) { return record_elementwise(record_of<Op>(), {&a, 1}); }
template <class Op> NArray apply(const Operand& a, const Operand& b) {
  const Operand operands[] = {a, b};
  return record_elementwise(record_of<Op>(), operands);
}

template <class Op> NArray& in_place(NArray& a, const Operand& b, const char* symbol) {
  if (b.node != nullptr) {
    const Shape &left = a.shape(), &right = b.node->shape;
    bool enlarges = right.ndim() > left.ndim();
    for (int i = 0; i < left.ndim() && !enlarges; ++i) enlarges = left[i] == 1 && right.at_or_one(i) != 1;
    if (enlarges)
      throw ShapeError(std::string("in-place ") + Op::info.name + ": " + left.str() + " " + symbol + " " +
                       right.str() + " would enlarge the left operand");
  }
  return a = apply<Op>(a, b);
}

}  // namespace

std::span<const OpRecord> elementwise_records() { return Records<All>::records; }
const OpRecord& elementwise_op(std::uint16_t code) { return Records<All>::records[code]; }

const OpRecord* find_elementwise(std::string_view name) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, const OpRecord*> map;
    for (const auto& op : elementwise_records())
      if (op.code != kCastCode) map.emplace(op.name, &op);
    return map;
  }();
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : it->second;
}

NArray elementwise(const char* name, std::span<const Operand> operands) {
  const OpRecord* op = find_elementwise(name);
  if (op == nullptr) throw Error(std::string(name) + ": there is no elementwise operation of this name");
  if (op->arity != static_cast<int>(operands.size())) {
    // The backward forms that exist with and without the error: sigm_back(err, y) and sigm_back(y).
    const OpRecord* other = operands.size() == 1 ? find_elementwise(std::string(name) + "1") : nullptr;
    if (other == nullptr)
      throw Error(std::string(name) + ": takes " + std::to_string(op->arity) + " operands, got " +
                  std::to_string(operands.size()));
    op = other;
  }
  return record_elementwise(*op, operands);
}

NArray operator%(const Operand& a, const Operand& b) { return apply<Remainder>(a, b); }
NArray operator&(const Operand& a, const Operand& b) { return apply<BitAnd>(a, b); }
NArray operator|(const Operand& a, const Operand& b) { return apply<BitOr>(a, b); }
NArray operator^(const Operand& a, const Operand& b) { return apply<BitXor>(a, b); }
NArray operator~(const NArray& a) { return apply<BitNot>(a); }
NArray floor_divide(const Operand& a, const Operand& b) { return apply<FloorDivide>(a, b); }
NArray operator+(const Operand& a, const Operand& b) { return apply<Add>(a, b); }
NArray operator-(const Operand& a, const Operand& b) { return apply<Sub>(a, b); }
NArray operator/(const Operand& a, const Operand& b) { return apply<Div>(a, b); }
NArray detail::scale(const Operand& a, const Operand& b) { return apply<Mult>(a, b); }
NArray operator-(const NArray& a) { return apply<Neg>(a); }

NArray operator>(const Operand& a, const Operand& b) { return apply<Gt>(a, b); }
NArray operator>=(const Operand& a, const Operand& b) { return apply<Ge>(a, b); }
NArray operator<(const Operand& a, const Operand& b) { return apply<Lt>(a, b); }
NArray operator<=(const Operand& a, const Operand& b) { return apply<Le>(a, b); }
NArray operator==(const Operand& a, const Operand& b) { return apply<Eq>(a, b); }
NArray operator!=(const Operand& a, const Operand& b) { return apply<Ne>(a, b); }

NArray& operator+=(NArray& a, const Operand& b) { return in_place<Add>(a, b, "+="); }
NArray& operator-=(NArray& a, const Operand& b) { return in_place<Sub>(a, b, "-="); }
NArray& operator/=(NArray& a, const Operand& b) { return in_place<Div>(a, b, "/="); }
NArray& operator%=(NArray& a, const Operand& b) { return in_place<Remainder>(a, b, "%="); }
NArray& operator&=(NArray& a, const Operand& b) { return in_place<BitAnd>(a, b, "&="); }
NArray& operator|=(NArray& a, const Operand& b) { return in_place<BitOr>(a, b, "|="); }
NArray& operator^=(NArray& a, const Operand& b) { return in_place<BitXor>(a, b, "^="); }
NArray& detail::floor_divide_in_place(NArray& a, const Operand& b) { return in_place<FloorDivide>(a, b, "//="); }

NArray pow(const Operand& a, const Operand& b) {
  // x ** 2 is x * x wherever that has pow's type.
  if (a.node != nullptr && b.node == nullptr && b.value == 2.0 && (b.kind != 3 || is_float(a.node->dtype)))
    return apply<Square>(a);
  // As in NumPy: the powers are fractions, which int32 cannot hold.
  if (a.node != nullptr && b.node == nullptr && b.kind == 2 && b.value < 0 && !is_float(a.node->dtype))
    throw DTypeError("pow of " + std::string(name(a.node->dtype)) + " and the negative integer " +
                     std::to_string(static_cast<std::int64_t>(b.value)) + ": the result is no integer; use a float as "
                     "the exponent, or astype first");
  return apply<Pow>(a, b);
}

NArray NArray::astype(DType dtype) const { return record_cast(*this, dtype); }

}  // namespace owl
