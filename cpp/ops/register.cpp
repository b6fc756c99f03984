// The registry of all operations, by the lists in ops/records.h and ops/elementwise.h.
#include <unordered_map>

#include "graph/op.h"
#include "ops/records.h"

namespace owl {

const std::vector<const OpRecord*>& all_ops() {
  static const auto list = [] {
    std::vector<const OpRecord*> ops;
    for (const auto& op : elementwise_records()) ops.push_back(&op);
#define OWL_ADD(NAME) ops.push_back(&op_##NAME);
    OWL_KERNEL_OPERATIONS(OWL_ADD)
#undef OWL_ADD
    return ops;
  }();
  return list;
}

const OpRecord* find_op(std::string_view name) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, const OpRecord*> map;
    for (const auto* op : all_ops()) map.emplace(op->name, op);
    return map;
  }();
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : it->second;
}

}  // namespace owl
