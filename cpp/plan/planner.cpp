// Plans a batch in passes, a file each: group, lay out, order, emit. Debug builds verify the plan between them.
#include "plan/planner.h"

#include <algorithm>

#include "plan/batch.h"
#include "plan/emit.h"
#include "plan/group.h"
#include "plan/layout.h"
#include "plan/order.h"
#include "plan/verify.h"

namespace owl {

namespace {

using planner::kVerify;
using Tasks = std::vector<std::unique_ptr<Task>>;

void plan_batch(std::span<Node* const> nodes, Tasks& tasks, DryPlan* dry) {
  planner::Batch batch(nodes);
  planner::group(batch);
  if (kVerify) planner::verify_groups(batch);
  planner::lay_out(batch);
  if (kVerify) planner::verify_layouts(batch);
  const auto order = planner::order(batch);
  if (kVerify) planner::verify_order(batch, order);
  const auto earlier = tasks.size();
  planner::emit(batch, order, tasks, dry);
  if (kVerify) planner::verify_tasks(batch, std::span(tasks).subspan(earlier), dry);
}

template <class F> void for_each_batch(std::span<Node* const> nodes, F f) {
  using planner::kMaxBatch;
  for (std::size_t at = 0; at < nodes.size(); at += kMaxBatch)
    f(nodes.subspan(at, std::min(kMaxBatch, nodes.size() - at)));
}

}  // namespace

Tasks plan(const std::vector<Node*>& recorded) {
  Tasks tasks;
  for_each_batch(recorded, [&tasks](std::span<Node* const> nodes) {
    plan_batch(nodes, tasks, nullptr);
    for (Node* node : nodes) {
      node->clear_inputs();
      node->release();
    }
  });
  return tasks;
}

DryPlan plan_dry(const std::vector<Node*>& recorded) {
  DryPlan dry;
  for_each_batch(recorded, [&dry](std::span<Node* const> nodes) { plan_batch(nodes, dry.tasks, &dry); });
  return dry;
}

}  // namespace owl
