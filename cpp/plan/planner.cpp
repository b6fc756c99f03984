// Plans a batch in passes, a file each: group, lay out, order, emit, join what is alike. Debug builds verify the plan
// between them.
#include "plan/planner.h"

#include <algorithm>
#include <iterator>

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

void join(planner::AlikeTasks* alike, Tasks planned, Tasks& tasks) {
  if (alike) alike->add(std::move(planned), tasks);
  else std::ranges::move(planned, std::back_inserter(tasks));
}

template <class F> void for_each_batch(std::span<Node* const> nodes, F f) {
  while (!nodes.empty()) {
    const auto end = planner::cut(nodes, planner::kMaxBatch);
    f(nodes.first(end));
    nodes = nodes.subspan(end);
  }
}

}  // namespace

Tasks plan(const std::vector<Node*>& recorded, planner::AlikeTasks* alike) {
  Tasks tasks;
  for_each_batch(recorded, [&](std::span<Node* const> nodes) {
    Tasks planned;
    plan_batch(nodes, planned, nullptr);
    join(alike, std::move(planned), tasks);  // before other threads learn of the values
    for (Node* node : nodes) {
      node->clear_inputs();
      node->release();
    }
  });
  return tasks;
}

DryPlan plan_dry(const std::vector<Node*>& recorded, bool join_alike) {
  DryPlan dry;
  Tasks planned;
  for_each_batch(recorded, [&](std::span<Node* const> nodes) { plan_batch(nodes, planned, &dry); });
  planner::AlikeTasks alike;
  join(join_alike ? &alike : nullptr, std::move(planned), dry.tasks);
  alike.release_all(dry.tasks);
  return dry;
}

}  // namespace owl
