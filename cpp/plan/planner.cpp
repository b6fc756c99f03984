// Plans a batch in passes, a file each: group, lay out, order, emit, join what is alike. Debug builds verify the plan
// between them.
#include "plan/planner.h"

#include "plan/batch.h"
#include "plan/cut.h"
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
  for (const auto length : planner::cut_all(nodes, planner::kMaxBatch)) {
    f(nodes.first(length));
    nodes = nodes.subspan(length);
  }
}

}  // namespace

Tasks plan(const std::vector<Node*>& recorded, planner::AlikeTasks* alike) {
  Tasks tasks;
  for_each_batch(recorded, [&](std::span<Node* const> nodes) {
    Tasks planned;
    plan_batch(nodes, alike ? planned : tasks, nullptr);
    if (alike) alike->add(std::move(planned), tasks);  // before other threads learn of the values
    for (Node* node : nodes) {
      node->clear_inputs();
      node->release();
    }
  });
  return tasks;
}

DryPlan plan_dry(const std::vector<Node*>& recorded, bool join_alike) {
  DryPlan dry;
  planner::AlikeTasks alike;
  for_each_batch(recorded, [&](std::span<Node* const> nodes) {
    if (!join_alike) return plan_batch(nodes, dry.tasks, &dry);
    Tasks planned;
    plan_batch(nodes, planned, &dry);
    alike.add(std::move(planned), dry.tasks);
  });
  alike.release_all(dry.tasks);
  return dry;
}

}  // namespace owl
