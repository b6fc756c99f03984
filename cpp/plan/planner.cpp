// Plans a batch in passes, a file each: group, lay out, order, emit, form strips, fill in, join what is alike. A batch
// like an earlier one has that one's plan, and only the last two are left. Debug builds verify the plan between the passes.
#include "plan/planner.h"

#include <algorithm>

#include "plan/batch.h"
#include "plan/cut.h"
#include "plan/emit.h"
#include "plan/fill_in.h"
#include "plan/form_strips.h"
#include "plan/group.h"
#include "plan/layout.h"
#include "plan/order.h"
#include "plan/verify.h"

namespace owl {

namespace {

using planner::Batch;
using planner::BatchPlan;
using planner::kVerify;

BatchPlan make_plan(Batch& batch) {
  planner::group(batch);
  if (kVerify) planner::verify_groups(batch);
  planner::lay_out(batch);
  if (kVerify) planner::verify_layouts(batch);
  const auto order = planner::order(batch);
  if (kVerify) planner::verify_order(batch, order);
  auto plan = planner::emit(batch, order);
  planner::form_strips(batch, plan);
  return plan;
}

// With the plan that is known for such batches, if `known` is given.
void plan_batch(std::span<Node* const> nodes, bool user_code, Tasks& tasks, planner::KnownPlans* known, DryPlan* dry) {
  Batch batch(nodes, !user_code);
  const auto make = [&batch] { return make_plan(batch); };
  BatchPlan made;
  BatchPlan& plan = known ? known->plan_of(batch, make) : (made = make());
  if (kVerify && known) planner::verify_known(plan, batch.groups.empty() ? make() : plan);
  const auto earlier = tasks.size();
  planner::fill_in(plan, nodes, tasks, dry);
  if (kVerify) planner::verify_tasks(batch, std::span(tasks).subspan(earlier), dry);
}

template <class F> void for_each_batch(std::span<Node* const> nodes, F f) {
  if (nodes.size() <= planner::kMaxBatch) return f(nodes);
  for (const auto length : planner::cut_all(nodes, planner::kMaxBatch)) {
    f(nodes.first(length));
    nodes = nodes.subspan(length);
  }
}

}  // namespace

void plan(std::span<Node* const> recorded, planner::KnownPlans& known, planner::AlikeTasks* alike, bool user_code,
          Tasks& tasks) {
  for_each_batch(recorded, [&](std::span<Node* const> nodes) {
    Tasks planned;
    plan_batch(nodes, user_code, alike ? planned : tasks, &known, nullptr);
    if (alike) alike->add(std::move(planned), tasks);  // before other threads learn of the values
    for (Node* node : nodes) {
      node->clear_inputs();
      node->release();
    }
  });
}

DryPlan plan_dry(const std::vector<Node*>& recorded, bool join_alike) {
  DryPlan dry;
  planner::AlikeTasks alike;
  const bool user_code = std::ranges::any_of(recorded, [](const Node* node) { return node->op->runs_user_code; });
  for_each_batch(recorded, [&](std::span<Node* const> nodes) {
    if (!join_alike) return plan_batch(nodes, user_code, dry.tasks, nullptr, &dry);
    Tasks planned;
    plan_batch(nodes, user_code, planned, nullptr, &dry);
    alike.add(std::move(planned), dry.tasks);
  });
  alike.release_all(dry.tasks);
  return dry;
}

}  // namespace owl
