// owl.elewise: one function for each elementwise operation that the registry offers.
#include <array>
#include <deque>
#include <string>
#include <utility>

#include "graph/gradient.h"
#include "graph/record.h"
#include "python/arguments.h"
#include "python/bind.h"
#include "python/operand.h"
#include "python/source.h"

namespace owl::python {

namespace {

using Names = std::array<const char*, 3>;

struct Function {
  const OpRecord* op;
  const OpRecord* factor;       // the form with one argument (sigm_back(y)), or null
  const OpRecord* approximate;  // what approximate=True chooses (gelu), or null
  std::string place;            // for messages: "argument of relu"
  std::string doc;
  Names names;
  PyMethodDef entry;
};

// The self of a function: a module, because pickle finds functions of modules by their names. Its state is the address
// of the Function.
PyModuleDef holder_of_function = {PyModuleDef_HEAD_INIT, "owl.elewise", nullptr, sizeof(const Function*), nullptr,
                                  nullptr, nullptr, nullptr, nullptr};

const Function& function_of(PyObject* self) { return **static_cast<const Function**>(PyModule_GetState(self)); }

// The operation for a call of gelu; `values` become its operands.
const OpRecord* choose_exactness(const Function& f, const Call& call, PyObject** values) {
  const std::string name = f.op->name;
  call.parse(f.op->name, std::span(f.names.data(), 2), 1, 2, values);
  return to_bool(values[1], false, (name + ": approximate").c_str()) ? f.approximate : f.op;
}

PyObject* apply(PyObject* self, PyObject* const* values, Py_ssize_t positional, PyObject* keywords) noexcept {
  return guarded([&] {
    const Function& f = function_of(self);
    const OpRecord* op = f.op;
    const char* const* names = f.names.data();
    if (f.factor && positional + (keywords ? PyTuple_GET_SIZE(keywords) : 0) == 1) {
      op = f.factor;
      ++names;  // (err, y) without err
    }
    const auto count = static_cast<std::size_t>(op->arity);
    PyObject* sorted[3] = {};
    if (keywords || static_cast<std::size_t>(positional) != count) {
      const Call call{values, positional, keywords};
      if (f.approximate) op = choose_exactness(f, call, sorted);
      else call.parse(f.op->name, std::span(names, count), op->arity - (op->parameter != nullptr), count, sorted);
      values = sorted;
    }
    Operand operands[3] = {0.0, 0.0, 0.0};
    bool any_array = false;
    for (std::size_t i = 0; i < count; ++i) {
      if (!values[i]) operands[i] = Operand(op->fallback);
      else if (!to_operand(values[i], f.place.c_str(), operands[i])) refuse_operand(values[i], f.place.c_str());
      any_array |= operands[i].node != nullptr;
    }
    if (!any_array) throw py::type_error(std::string("owl: ") + f.op->name + " needs an NArray, not only numbers");
    note_source();
    return wrap(record_elementwise(*op, std::span<const Operand>(operands, count)));
  });
}

// The names of the arguments; most operations have the operands x and y.
Names argument_names(const OpRecord& op, bool has_approximation) {
  const std::string_view name = op.name;
  if (op.parameter) return {"x", op.parameter};
  if (has_approximation) return {"x", "approximate"};
  if (name.ends_with("_back")) return {"err", "y"};
  if (name == "clip") return {"x", "low", "high"};
  if (name == "atan2") return {"y", "x"};
  if (name == "where") return {"condition", "x", "y"};
  return {"x", "y", "z"};
}

std::string doc_of(const OpRecord& op, const Names& names, bool has_factor, bool has_approximation) {
  std::string text = std::string(op.name) + "(";
  for (int i = 0; i < op.arity; ++i) text += std::string(i ? ", " : "") + names[static_cast<std::size_t>(i)];
  if (op.parameter) text += "=" + py::repr(py::float_(op.fallback)).cast<std::string>();
  if (has_approximation) text += ", approximate=False";
  text += ")\n--\n\n" + std::string(op.doc);
  if (has_factor) text += "\n\nWith one argument, " + std::string(op.name) + "(y): the factor of err.";
  if (has_approximation) text += ", or with approximate=True its approximation by tanh";
  text += op.arity == 1 ? "\n\nThe result has the shape of x"
                        : "\n\nArrays or numbers, at least one array; axes of length 1 broadcast";
  switch (op.rule) {
    case TypeRule::kFloat: text += "; bools and integers give float32."; break;
    case TypeRule::kIntFromBool:
      text += op.arity == 1 ? " and its type; bool gives int32."
                            : "; its type is the largest of the operands', of bools int32.";
      break;
    case TypeRule::kCompare:
    case TypeRule::kPredicate: text += " and type bool."; break;
    default: text += "; its type is the largest of the operands'."; break;
  }
  return text;
}

// The names of NumPy and PyTorch.
constexpr std::pair<const char*, const char*> kAliases[] = {
    {"log", "ln"}, {"sigmoid", "sigm"}, {"multiply", "mult"}};

}  // namespace

void bind_elewise(py::module_& m) {
  m.def(
      "ops",
      [] {
        py::list all;
        for (const OpRecord* op : all_ops()) {
          py::dict entry;
          entry["name"] = op->name;
          entry["doc"] = op->doc;
          entry["arity"] = op->arity;
          entry["elementwise"] = op->cls == OpRecord::Class::kElementwise;
          entry["function"] = op->in_elewise;
          entry["gradient"] = op->gradient->rule != nullptr;
          all.append(entry);
        }
        return all;
      },
      "Every operation in the registry, as dicts: name, doc, arity, elementwise, function (offered by owl.elewise),\n"
      "gradient (has one).");
  auto module = m.def_submodule("elewise", "Elementwise functions, generated from the registry of operations.");
  auto& functions = *new std::deque<Function>;  // method tables live as long as the process
  auto module_name = py::str("owl.elewise");
  for (const OpRecord* op : all_ops()) {
    if (!op->in_elewise) continue;
    const OpRecord* factor = find_op(std::string(op->name) + "1");
    const OpRecord* approximate = find_op(std::string(op->name) + "_tanh");
    const Names names = argument_names(*op, approximate);
    Function& f = functions.emplace_back(Function{op, factor, approximate, std::string("argument of ") + op->name,
                                                  doc_of(*op, names, factor, approximate), names, {}});
    auto* entry = reinterpret_cast<void (*)()>(&apply);
    f.entry = {op->name, reinterpret_cast<PyCFunction>(entry), METH_FASTCALL | METH_KEYWORDS, f.doc.c_str()};
    auto self = py::reinterpret_steal<py::object>(PyModule_Create(&holder_of_function));
    if (!self) throw py::error_already_set();
    *static_cast<const Function**>(PyModule_GetState(self.ptr())) = &f;
    auto made = py::reinterpret_steal<py::object>(PyCFunction_NewEx(&f.entry, self.ptr(), module_name.ptr()));
    if (!made) throw py::error_already_set();
    module.attr(op->name) = made;
  }
  for (const auto& [alias, name] : kAliases) module.attr(alias) = module.attr(name);
}

}  // namespace owl::python
