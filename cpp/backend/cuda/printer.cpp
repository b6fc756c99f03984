#include "backend/cuda/printer.h"

#include <algorithm>

#include "backend/cpu/strided_copy.h"
#include "ops/elementwise.h"

namespace owl::cuda {

namespace {

using Instruction = Program::Instruction;

constexpr int kPack = 4;  // elements of a thread

std::string n(std::int64_t number) { return std::to_string(number); }

template <class... Ops>
bool has_rare(elementwise_ops::OpList<Ops...>, int code) {
  constexpr bool all[] = {(requires { Ops::template eval_rare<float>(0.0f); } ||
                           requires { Ops::template eval_rare<float>(0.0f, 0.0f); } ||
                           requires { Ops::template eval_rare<float>(0.0f, 0.0f, 0.0f); })...};
  return all[code];
}

std::string pointer(const char* type, int slot, bool writes) {
  return std::string("pointer<") + (writes ? "" : "const ") + type + ">(args, " + n(slot) + ")";
}

}  // namespace

const char* type_name(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return "uint8_t";
    case DType::kUInt8:
      return "UInt8";
    case DType::kInt32:
      return "int32_t";
    case DType::kInt64:
      return "int64_t";
    case DType::kFloat16:
      return "Float16";
    case DType::kBFloat16:
      return "BFloat16";
    case DType::kFloat32:
      return "float";
    case DType::kFloat64:
      break;
  }
  return "double";
}

Printer::Printer(const Program& program, Role role, int slot, Addresses<const void*> in, Addresses<void*> out)
    : program_(program), role_(role), slot_(slot), in_(std::move(in)), out_(std::move(out)) {
  const auto& inputs = program.inputs;
  kinds_.resize(inputs.size(), Kind::kDense);
  strides_.resize(inputs.size());
  stride_slot_.resize(inputs.size(), -1);
  if (role == Role::kStore) {
    in_.insert(in_.begin(), nullptr);
    kinds_[0] = Kind::kValue;
  }
  if (role == Role::kLoad) out_.push_back(nullptr);

  std::vector<Strides*> strided;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].dense || kinds_[i] == Kind::kValue) continue;
    strides_[i] = inputs[i].strides;
    strided.push_back(&strides_[i]);
  }
  if (!strided.empty()) {
    const auto axes = cpu::merge_axes(program.shape, strided.data(), static_cast<int>(strided.size()));
    axes_ = axes.count;
    std::copy_n(axes.lengths, axes_, lengths_);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].dense || kinds_[i] == Kind::kValue) continue;
      const bool still = std::all_of(strides_[i].begin(), strides_[i].begin() + axes_, [](auto s) { return s == 0; });
      kinds_[i] = still ? Kind::kScalar : axes_ == 1 && strides_[i][0] == 1 ? Kind::kDense : Kind::kStrided;
    }
    if (std::ranges::find(kinds_, Kind::kStrided) == kinds_.end()) axes_ = 0;
  }

  for (const auto kind : kinds_) in_slot_.push_back(kind == Kind::kValue ? -1 : slot++);
  for (std::size_t o = 0; o < out_.size(); ++o)
    out_slot_.push_back(role == Role::kLoad && o + 1 == out_.size() ? -1 : slot++);
  for (std::size_t c = 0; c < program.constants.size(); ++c) constant_slot_.push_back(slot++);
  length_slot_ = slot;
  slot += axes_;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    if (kinds_[i] != Kind::kStrided) continue;
    stride_slot_[i] = slot;
    slot += axes_;
  }
  size_slot_ = slot;
  end_slot_ = slot + (role == Role::kAlone);

  packed_ = role == Role::kAlone;
  const auto aligned = [](const void* data, DType dtype) {
    return reinterpret_cast<std::uintptr_t>(data) % std::min<std::size_t>(16, kPack * itemsize(dtype)) == 0;
  };
  for (std::size_t i = 0; i < kinds_.size(); ++i)
    packed_ &= kinds_[i] != Kind::kDense || aligned(in_[i], inputs[i].dtype);
  for (std::size_t o = 0; o < out_.size(); ++o) packed_ &= aligned(out_[o], program.outputs[o].dtype);
}

std::int64_t Printer::blocks() const { return blocks_for((program_.shape.size() + kPack - 1) / kPack); }

void Printer::add_key(std::string& key) const {
  const auto add = [&](auto value) { key.append(reinterpret_cast<const char*>(&value), sizeof value); };
  add(role_);
  add(slot_);
  add(packed_);
  add(axes_);
  add(kinds_.size());
  for (std::size_t i = 0; i < kinds_.size(); ++i) add(kinds_[i]), add(program_.inputs[i].dtype);
  add(program_.constants.size());
  for (const auto& c : program_.constants) add(c.dtype);
  add(program_.instructions.size());
  for (const auto& i : program_.instructions) {
    add(i.code), add(i.dtype), add(i.result);
    for (int k = 0; k < i.arity; ++k) add(i.in[k]);
  }
  add(program_.outputs.size());
  for (const auto& o : program_.outputs) add(o.value), add(o.dtype);
}

void Printer::add_slots(Slots& slots) const {
  for (std::size_t i = 0; i < in_.size(); ++i)
    if (in_slot_[i] >= 0) slots.add(in_[i]);
  for (std::size_t o = 0; o < out_.size(); ++o)
    if (out_slot_[o] >= 0) slots.add(out_[o]);
  for (const auto& c : program_.constants) {
    if (is_float(c.dtype))
      slots.add(c.value);
    else if (c.dtype == DType::kInt64)
      slots.add(c.integer);
    else
      slots.add(c.dtype == DType::kBool ? std::int64_t{c.value != 0} : static_cast<std::int64_t>(c.value));
  }
  for (int axis = 0; axis < axes_; ++axis) slots.add(lengths_[axis]);
  for (std::size_t i = 0; i < kinds_.size(); ++i)
    for (int axis = 0; kinds_[i] == Kind::kStrided && axis < axes_; ++axis)
      slots.add(strides_[i][static_cast<std::size_t>(axis)]);
  if (role_ == Role::kAlone) slots.add(program_.shape.size());
}

// element(args, i, the dense inputs' elements ..., the outputs' elements ...): one element of every value.
std::string Printer::element_function() const {
  const std::string name = role_ == Role::kLoad ? "load_element" : role_ == Role::kStore ? "store_element" : "element";
  std::string s = "OWL_DEVICE void " + name + "(const Arguments& args, Index i";
  for (std::size_t i = 0; i < kinds_.size(); ++i)
    if (kinds_[i] == Kind::kDense || kinds_[i] == Kind::kValue)
      s += std::string(", ") + type_name(program_.inputs[i].dtype) + " v" + n(static_cast<std::int64_t>(i));
  for (std::size_t o = 0; o < out_.size(); ++o)
    s += std::string(", ") + type_name(program_.outputs[o].dtype) + "& o" + n(static_cast<std::int64_t>(o));
  s += ") {\n  using namespace owl::elementwise_ops;\n";
  for (int axis = 0; axis < axes_; ++axis) {
    const auto from = axis == 0 ? std::string("i") : "r" + n(axis - 1);
    const auto length = "static_cast<Index>(integer(args, " + n(length_slot_ + axis) + "))";
    s += "  const Index c" + n(axis) + " = " + (axis + 1 == axes_ ? from : from + " % " + length) + ";\n";
    if (axis + 1 < axes_) s += "  const Index r" + n(axis) + " = " + from + " / " + length + ";\n";
  }
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    if (kinds_[i] != Kind::kScalar && kinds_[i] != Kind::kStrided) continue;
    const auto* const type = type_name(program_.inputs[i].dtype);
    std::string at = "0";
    for (int axis = 0; kinds_[i] == Kind::kStrided && axis < axes_; ++axis)
      at += " + c" + n(axis) + " * integer(args, " + n(stride_slot_[i] + axis) + ")";
    s += std::string("  const ") + type + " v" + n(static_cast<std::int64_t>(i)) + " = " +
         pointer(type, in_slot_[i], false) + "[" + at + "];\n";
  }
  std::size_t value = kinds_.size();
  for (std::size_t c = 0; c < program_.constants.size(); ++c, ++value) {
    const DType dtype = program_.constants[c].dtype;
    s += std::string("  const ") + type_name(dtype) + " v" + n(static_cast<std::int64_t>(value)) + " = static_cast<" +
         type_name(dtype) + ">(" + (is_float(dtype) ? "number" : "integer") + "(args, " + n(constant_slot_[c]) +
         "));\n";
  }
  for (const Instruction& i : program_.instructions) {
    const std::string op = elementwise_ops::struct_names[i.code];
    const std::string type = type_name(i.dtype);
    std::string operands;
    for (int k = 0; k < i.arity; ++k) operands += (k ? ", v" : "v") + n(i.in[k]);
    std::string result = op + "::eval<" + type + ">(" + operands + ")";
    if (i.code == kCastCode)
      result = "convert<" + type + ", " + type_name(i.result) + ">(" + operands + ")";
    else if (has_rare(elementwise_ops::All{}, i.code))
      result = op + "::rare<" + type + ">(" + operands + ") ? " + op + "::eval_rare<" + type + ">(" + operands +
               ") : " + result;
    s += std::string("  const ") + type_name(i.result) + " v" + n(static_cast<std::int64_t>(value++)) + " = " + result +
         ";\n";
  }
  for (std::size_t o = 0; o < out_.size(); ++o)
    s += "  o" + n(static_cast<std::int64_t>(o)) + " = v" + n(program_.outputs[o].value) + ";\n";
  return s + "}\n";
}

// The arguments of element(): `dense` with k in place of @ for input k, and `out` likewise for outputs.
std::string Printer::call(const char* dense, const char* out) const {
  const auto numbered = [](std::string pattern, std::size_t k) {
    for (auto at = pattern.find('@'); at != std::string::npos; at = pattern.find('@'))
      pattern.replace(at, 1, n(static_cast<std::int64_t>(k)));
    return pattern;
  };
  std::string s;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    if (kinds_[i] == Kind::kDense) s += ", " + numbered(dense, i);
    if (kinds_[i] == Kind::kValue) s += ", v";
  }
  for (std::size_t o = 0; o < out_.size(); ++o) s += ", " + numbered(out, o);
  return s;
}

std::string Printer::text(const char* head) const {
  std::string s = element_function();
  // A pointer for each dense array, and a variable for each output.
  std::string pointers, elements, stores;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    const auto* const type = type_name(program_.inputs[i].dtype);
    if (kinds_[i] == Kind::kDense)
      pointers += std::string("  const ") + type + "* const in" + n(static_cast<std::int64_t>(i)) + " = " +
                  pointer(type, in_slot_[i], false) + ";\n";
  }
  for (std::size_t o = 0; o < out_.size(); ++o) {
    const auto* const type = type_name(program_.outputs[o].dtype);
    const auto k = n(static_cast<std::int64_t>(o));
    elements += std::string("  ") + type + " o" + k + ";\n";
    if (out_slot_[o] < 0) continue;
    pointers += std::string("  ") + type + "* const out" + k + " = " + pointer(type, out_slot_[o], true) + ";\n";
    stores += "  out" + k + "[i] = o" + k + ";\n";
  }
  if (role_ == Role::kLoad) {
    const auto last = n(static_cast<std::int64_t>(out_.size()) - 1);
    return s + "OWL_DEVICE " + type_name(program_.outputs.back().dtype) + " load(const Arguments& args, Index i) {\n" +
           pointers + elements + "  load_element(args, i" + call("in@[i]", "o@") + ");\n" + stores + "  return o" +
           last + ";\n}\n";
  }
  if (role_ == Role::kStore)
    return s + "OWL_DEVICE void store(const Arguments& args, Index i, " + type_name(program_.inputs[0].dtype) +
           " v) {\n" + pointers + elements + "  store_element(args, i" + call("in@[i]", "o@") + ");\n" + stores + "}\n";

  s += head + std::string(" {\n") + pointers + "  const Index size = static_cast<Index>(integer(args, " +
       n(size_slot_) + "));\n";
  const auto one = "{\n" + elements + "  element(args, i" + call("in@[i]", "o@") + ");\n" + stores + "  }\n";
  if (!packed_)
    return s +
           "  OWL_THREADS(t) for (int u = 0; u < 4; ++u) {\n    const Index i = (block * 4 + u) * kBlock + t;\n"
           "    if (i < size) " +
           one + "  }\n}\n";
  s += "  OWL_THREADS(t) {\n    const Index first = (block * kBlock + t) * 4;\n    if (first + 4 <= size) {\n";
  std::string loads, packs, writes;
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    const auto k = n(static_cast<std::int64_t>(i));
    const std::string pack = std::string("Pack<") + type_name(program_.inputs[i].dtype) + ">";
    if (kinds_[i] == Kind::kDense)
      loads += "  const " + pack + " p" + k + " = *reinterpret_cast<const " + pack + "*>(in" + k + " + first);\n";
  }
  for (std::size_t o = 0; o < out_.size(); ++o) {
    const auto k = n(static_cast<std::int64_t>(o));
    const std::string pack = std::string("Pack<") + type_name(program_.outputs[o].dtype) + ">";
    packs += "  " + pack + " q" + k + ";\n";
    writes += "  *reinterpret_cast<" + pack + "*>(out" + k + " + first) = q" + k + ";\n";
  }
  s += loads + packs + "  OWL_UNROLL for (int u = 0; u < 4; ++u) element(args, first + u" + call("p@.v[u]", "q@.v[u]") +
       ");\n" + writes + "    } else {\n  for (Index i = first; i < size; ++i) " + one + "    }\n  }\n}\n";
  return s;
}

}  // namespace owl::cuda
