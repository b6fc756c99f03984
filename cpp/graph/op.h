// Operations as data: what each one means, for every device. One OpRecord each, defined in a family file under ops/ and
// listed once in ops/records.h. How a device computes an operation is in its backend's table (KernelTraits).
#pragma once

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/module_api.h"
#include "graph/node.h"
#include "graph/type_rule.h"

namespace owl {

class Operand;
struct Gradient;
struct OpRecord;

struct ResultType {
  Shape shape;
  DType dtype;
  Device* device = nullptr;  // where the result lives; null: where the operation is computed
};
// The shapes and types of an operation's results; usually one, stored without an allocation.
struct Results {
  Results(const Shape& shape, DType dtype) : first{shape, dtype} {}
  explicit Results(std::span<const ResultType> all) : first(all[0]), more(all.begin() + 1, all.end()) {}
  std::size_t size() const { return 1 + more.size(); }
  const ResultType& operator[](std::size_t i) const { return i == 0 ? first : more[i - 1]; }

  ResultType first;
  std::vector<ResultType> more;
};

using InferFn = Results (*)(std::span<Node* const> in, const Params* params);  // throws owl errors
using CheckFn = void (*)(const OpRecord& op, std::span<const Operand> operands);  // throws owl errors
using CostFn = double (*)(std::span<const Shape> in, const Shape& out, const Params* params);

struct OpRecord {
  enum class Class : std::uint8_t { kElementwise, kKernel };

  const char* name;   // "matmul": in errors, logs and profiles
  const char* doc;    // one line with shapes; front ends show it
  Class cls = Class::kKernel;
  int arity = 1;      // number of array operands, -1 for any

  // kElementwise: a scalar expression, run as part of a fused program (plan/program.h).
  TypeRule rule = TypeRule::kArithmetic;
  std::uint16_t code = 0;  // its index in the list of expressions (ops/elementwise.h)
  bool in_elewise = false; // front ends offer it as elewise.<name>
  const char* parameter = nullptr;  // name of the optional last operand (slope), and its
  double fallback = 0;              // value then
  CheckFn check = nullptr;          // further checks while recording

  // kKernel:
  InferFn infer = nullptr;
  CostFn cost = nullptr;        // scalar operations; null: operand and result elements
  bool runs_user_code = false;  // the launch itself runs user code, so no trial launch
  bool copies_in = false;       // copies from another device, concurrently with this device's work
  bool joins_devices = false;   // operands stay on the devices where they are
  // It does more than compute its results, such as calling a library on several devices. It runs even if no handle is
  // left, and after the operation recorded before it with the same token (record_effect). Its last operand and its last
  // result are tokens, without elements.
  bool effect = false;
  // An effect that runs even if its operands have failed or its results got no memory, because other processes wait for
  // it; its kernel tells them, and uses no memory then.
  bool runs_on_failure = false;

  // How gradients flow back through it (graph/gradient.h); &no_gradient: by nature not at all. Never null in the
  // registry.
  const Gradient* gradient = nullptr;
};

inline constexpr std::uint16_t kCastCode = 0;  // of `cast`, first in the list of expressions: programs handle it separately

// The registry, which ops/register.cpp fills. All operations, in the order of the list:
OWL_MODULE_API const std::vector<const OpRecord*>& all_ops();
OWL_MODULE_API const OpRecord* find_op(std::string_view name);  // null if there is none
const OpRecord& elementwise_op(std::uint16_t code);

}  // namespace owl
