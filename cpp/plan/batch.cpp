#include "plan/batch.h"

namespace owl::planner {

Batch::Batch(std::span<Node* const> recorded, bool may_join) : nodes(recorded), may_join(may_join) {
  for (std::size_t i = 0; i < nodes.size(); ++i)
    nodes[i]->plan = {.index = static_cast<std::int32_t>(i), .has_handle = nodes[i]->handles() > 0};
  for (const Node* reader : nodes)
    for (Node* in : reader->inputs()) {
      if (!in) continue;
      if (in->plan.index >= 0) {
        ++in->plan.reads;
      } else if (in->plan.other < 0) {
        in->plan.other = static_cast<std::int32_t>(others.size());
        in->plan.has_handle = in->handles() > 0;
        others.push_back(in);
      }
    }
  for (Node* node : nodes) {
    node->plan.held = node->plan.has_handle || node->refs() > 1 + node->plan.reads;  // one reference is the batch's own
    if (node->results)
      for (std::uint16_t i = 0; i < node->result_count; ++i)
        node->results[i].wanted = node->results[i].nodes.load(std::memory_order_acquire) > 0;
  }
}

Batch::~Batch() {
  for (Node* node : nodes) node->plan.index = -1;
  for (Node* node : others) node->plan.other = -1;
}

}  // namespace owl::planner
